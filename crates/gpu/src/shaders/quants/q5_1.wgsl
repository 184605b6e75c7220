// Q5_1: a scale and an offset of half precision, the fifth bits of 32 numbers, then the low four as in Q4_1.

const BLOCK_LEN: u32 = 32u;

fn numbers4(block: u32, i: u32) -> u32 {
    let at = block * 6u;
    let low = weights[at + 2u + (i & 15u) / 4u] >> ((i >> 4u) * 4u);
    return four_nibbles(low) | (spread_bits(weights[at + 1u] >> i) << 4u);
}

fn scale_and_offset(block: u32, i: u32) -> vec2<f32> {
    return unpack2x16float(weights[block * 6u]);
}
