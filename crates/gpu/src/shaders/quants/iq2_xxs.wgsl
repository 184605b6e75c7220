// IQ2_XXS: a scale of half precision, then two words for each 32 weights: four codes of eight weights, and four times seven
// signs with a 4-bit scale in the top bits.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 33u;
    let group = at + 1u + (i >> 5u) * 4u;
    let n = (i >> 3u) & 3u;
    let code = (word(group) >> (n * 8u)) & 0xffu;
    let signs = word(group + 2u);
    let minus = eight_signs((signs >> (n * 7u)) & 0x7fu) >> (i & 4u);
    let scale = half_float(at) * (0.5 + f32(signs >> 28u)) * 0.25;
    return scale * four_signed(code * 2u + ((i >> 2u) & 1u), minus);
}
