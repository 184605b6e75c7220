// IQ3_XXS: a scale of half precision, a code for each four weights, then a word for each 32: four times seven signs, and a
// 4-bit scale in the top bits.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 49u;
    let signs = word(at + 33u + (i >> 5u) * 2u);
    let minus = eight_signs((signs >> (((i >> 3u) & 3u) * 7u)) & 0x7fu) >> (i & 4u);
    let scale = half_float(at) * (0.5 + f32(signs >> 28u)) * 0.5;
    return scale * four_signed(byte(at + 1u, i >> 2u), minus);
}
