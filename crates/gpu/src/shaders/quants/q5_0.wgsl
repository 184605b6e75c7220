// Q5_0: a scale of half precision, the fifth bits of 32 numbers from -16 to 15, then the low four as in Q4_0.

const BLOCK_LEN: u32 = 32u;

fn numbers4(block: u32, i: u32) -> u32 {
    let at = block * 11u;
    let low = word(at + 3u + (i & 15u) / 2u) >> ((i >> 4u) * 4u);
    return four_less(four_nibbles(low) | (spread_bits(word(at + 1u) >> i) << 4u), 16u);
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_float(block * 11u);
}
