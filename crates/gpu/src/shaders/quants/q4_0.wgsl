// Q4_0: a scale of half precision and 32 numbers from -8 to 7, four bits each: the low halves of the bytes are the first 16.

const BLOCK_LEN: u32 = 32u;

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = word(block * 9u + 1u + (i & 15u) / 2u) >> ((i >> 4u) * 4u);
    return four_less(four_nibbles(packed), 8u);
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_float(block * 9u);
}
