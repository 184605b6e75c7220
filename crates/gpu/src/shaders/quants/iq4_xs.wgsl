// IQ4_XS: a scale of half precision, 6-bit scales less 32 for every 32 weights (all their high two bits, then all their low
// four), then codes as in IQ4_NL.

const BLOCK_LEN: u32 = 256u;

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = weights[block * 34u + 2u + (i >> 5u) * 4u + (i & 15u) / 4u];
    return four_numbers(four_nibbles(packed >> (((i >> 4u) & 1u) * 4u)));
}

fn scale_at(block: u32, i: u32) -> f32 {
    let at = block * 34u;
    let n = i >> 5u;
    let first = weights[at];
    let low = (weights[at + 1u] >> (n * 4u)) & 15u;
    let high = (first >> (16u + n * 2u)) & 3u;
    return unpack2x16float(first).x * (f32(low | (high << 4u)) - 32.0);
}
