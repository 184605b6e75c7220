// IQ4_NL: a scale of half precision and 32 codes of four bits: the low halves of the bytes are the first 16.

const BLOCK_LEN: u32 = 32u;

fn numbers4(block: u32, i: u32) -> u32 {
    return four_numbers(four_nibbles(word(block * 9u + 1u + (i & 15u) / 2u) >> ((i >> 4u) * 4u)));
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_float(block * 9u);
}
