// TQ2_0: 256 numbers from -1 to 2 as in Q2_K, then a scale of half precision.

const BLOCK_LEN: u32 = 256u;

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = word(block * 33u + (i >> 7u) * 16u + (i & 31u) / 2u);
    return four_less(four_pairs(packed >> (((i >> 5u) & 3u) * 2u)), 1u);
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_float(block * 33u + 32u);
}
