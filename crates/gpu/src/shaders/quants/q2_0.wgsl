// Q2_0: a scale of half precision, and 64 numbers from -1 to 2, four in a byte, the first lowest.

const BLOCK_LEN: u32 = 64u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 9u;
    let packed = byte(at + 1u, i >> 2u);
    return half_float(at) * (vec4<f32>((vec4(packed) >> vec4(0u, 2u, 4u, 6u)) & vec4(3u)) - 1.0);
}
