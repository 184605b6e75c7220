// Q4_1: a scale and an offset of half precision, and 32 numbers of four bits: the low halves of the bytes are the first 16.

const BLOCK_LEN: u32 = 32u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 5u;
    let scale = unpack2x16float(weights[at]);
    let packed = weights[at + 1u + (i & 15u) / 4u] >> ((i >> 4u) * 4u);
    return scale.x * four_floats(four_nibbles(packed)) + scale.y;
}
