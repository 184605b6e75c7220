// IQ2_S: a scale of half precision, the low eight bits of a code for each eight weights, all signs, the high two bits of the
// codes, then 4-bit scales for every 16.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 41u;
    let n = i >> 3u;
    let high = (byte(at + 33u, i >> 5u) >> ((n & 3u) * 2u)) & 3u;
    let code = byte(at + 1u, n) | (high << 8u);
    let minus = byte(at + 17u, n) >> (i & 4u);
    let s = (byte(at + 37u, i >> 5u) >> (((i >> 4u) & 1u) * 4u)) & 15u;
    let scale = half_float(at) * (0.5 + f32(s)) * 0.25;
    return scale * four_signed(code * 2u + ((i >> 2u) & 1u), minus);
}
