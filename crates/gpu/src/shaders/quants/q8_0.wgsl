// Q8_0: a scale of half precision and 32 signed bytes.

const BLOCK_LEN: u32 = 32u;

fn numbers4(block: u32, i: u32) -> u32 {
    return word(block * 17u + 1u + i / 2u);
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_float(block * 17u);
}
