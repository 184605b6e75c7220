// Weights as a file has them, as words. Blocks begin wherever their bytes end up: those of a multiple of four bytes are read
// as words, most others by two bytes, MXFP4 by one.

@group(0) @binding(0) var<storage, read> weights: array<u32>;

// Two bytes, number `at` of them.
fn half_word(at: u32) -> u32 {
    return (weights[at >> 1u] >> ((at & 1u) * 16u)) & 0xffffu;
}

// Four bytes, beginning with two bytes number `at`.
fn word(at: u32) -> u32 {
    let first = weights[at >> 1u];
    let second = weights[(at + 1u) >> 1u];
    return select((first >> 16u) | (second << 16u), first, (at & 1u) == 0u);
}

// Byte number `n` of those that begin with two bytes number `at`.
fn byte(at: u32, n: u32) -> u32 {
    return (half_word(at + n / 2u) >> ((n & 1u) * 8u)) & 0xffu;
}

// The half-precision float that is two bytes number `at`.
fn half_float(at: u32) -> f32 {
    return unpack2x16float(half_word(at)).x;
}

// The low four bits of each byte.
fn four_nibbles(word: u32) -> u32 {
    return word & 0x0f0f0f0fu;
}

// The low two bits of each byte.
fn four_pairs(word: u32) -> u32 {
    return word & 0x03030303u;
}

// The low bit of each byte.
fn four_bits(word: u32) -> u32 {
    return word & 0x01010101u;
}

// The low four bits as the low bits of four bytes, the lowest first.
fn spread_bits(bits: u32) -> u32 {
    return four_bits((bits & 15u) * 0x00204081u);
}

// Bytes below 128, less `n` each, with a sign.
fn four_less(word: u32, n: u32) -> u32 {
    return ((word | 0x80808080u) - n * 0x01010101u) ^ 0x80808080u;
}

// Four bytes, without a sign, as floats.
fn four_floats(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xU8(word));
}
