// Weights as a file has them, as words: blocks begin wherever their bytes end up, at even ones in all types.

@group(0) @binding(0) var<storage, read> weights: array<u32>;

// Two bytes, number `at` of them.
fn half_word(at: u32) -> u32 {
    return (weights[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

// Four bytes, beginning with two bytes number `at`.
fn word(at: u32) -> u32 {
    return half_word(at) | (half_word(at + 1u) << 16u);
}

// The half-precision float that is two bytes number `at`.
fn half_float(at: u32) -> f32 {
    return unpack2x16float(half_word(at)).x;
}
