// TQ2_0: 256 numbers from -1 to 2 as in Q2_K, then a scale of half precision.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 33u;
    let packed = word(at + (i >> 7u) * 16u + (i & 31u) / 2u) >> (((i >> 5u) & 3u) * 2u);
    return half_float(at + 32u) * (four_floats(four_pairs(packed)) - 1.0);
}
