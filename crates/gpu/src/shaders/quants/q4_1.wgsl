// Q4_1: a scale and an offset of half precision, and 32 numbers of four bits: the low halves of the bytes are the first 16.

const BLOCK_LEN: u32 = 32u;

fn numbers4(block: u32, i: u32) -> u32 {
    return four_nibbles(weights[block * 5u + 1u + (i & 15u) / 4u] >> ((i >> 4u) * 4u));
}

fn scale_and_offset(block: u32, i: u32) -> vec2<f32> {
    return unpack2x16float(weights[block * 5u]);
}
