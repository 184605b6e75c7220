// IQ3_S: a scale of half precision, the low eight bits of a code for each four weights, their ninth bits, all signs, then
// 4-bit scales for every 32.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 55u;
    let n = i >> 2u;
    let high = (byte(at + 33u, i >> 5u) >> (n & 7u)) & 1u;
    let minus = byte(at + 37u, i >> 3u) >> (i & 4u);
    let s = (byte(at + 53u, i >> 6u) >> (((i >> 5u) & 1u) * 4u)) & 15u;
    return half_float(at) * f32(2u * s + 1u) * four_signed(byte(at + 1u, n) | (high << 8u), minus);
}
