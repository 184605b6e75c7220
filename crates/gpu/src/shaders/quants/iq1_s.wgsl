// IQ1_S: a scale of half precision, the low eight bits of a code for each eight weights, then two bytes for each 32: four
// times the codes' high three bits, a 3-bit scale, and whether the weights are shifted down or up, by an eighth. The table has
// weights times eight.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 25u;
    let n = i >> 3u;
    let packed = half_word(at + 17u + (i >> 5u));
    let code = byte(at + 1u, n) | (((packed >> ((n & 3u) * 3u)) & 7u) << 8u);
    let shift = select(1.0, -1.0, (packed >> 15u) == 1u);
    let scale = half_float(at) * f32(2u * ((packed >> 12u) & 7u) + 1u) * 0.125;
    return scale * (four_signed(code * 2u + ((i >> 2u) & 1u), 0u) + shift);
}
