// Q8_0: a scale of half precision and 32 signed bytes.

const BLOCK_LEN: u32 = 32u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 17u;
    return half_float(at) * vec4<f32>(unpack4xI8(word(at + 1u + i / 2u)));
}
