// Q4_0: a scale of half precision and 32 numbers from -8 to 7, four bits each: the low halves of the bytes are the first 16.

const BLOCK_LEN: u32 = 32u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 9u;
    let packed = word(at + 1u + (i & 15u) / 2u) >> ((i >> 4u) * 4u);
    let numbers = vec4<i32>(vec4(packed, packed >> 8u, packed >> 16u, packed >> 24u) & vec4(15u)) - vec4(8);
    return half_float(at) * vec4<f32>(numbers);
}
