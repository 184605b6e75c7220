// IQ4_NL: a scale of half precision and 32 codes of four bits: the low halves of the bytes are the first 16.

const BLOCK_LEN: u32 = 32u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 9u;
    let packed = word(at + 1u + (i & 15u) / 2u) >> ((i >> 4u) * 4u);
    return half_float(at) * four_levels(four_nibbles(packed));
}
