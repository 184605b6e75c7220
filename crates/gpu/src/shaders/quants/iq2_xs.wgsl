// IQ2_XS: a scale of half precision, two bytes for each eight weights (a code of nine bits, seven signs), then 4-bit scales
// for every 16.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 37u;
    let packed = half_word(at + 1u + (i >> 3u));
    let minus = eight_signs(packed >> 9u) >> (i & 4u);
    let s = (byte(at + 33u, i >> 5u) >> (((i >> 4u) & 1u) * 4u)) & 15u;
    let scale = half_float(at) * (0.5 + f32(s)) * 0.25;
    return scale * four_signed((packed & 511u) * 2u + ((i >> 2u) & 1u), minus);
}
