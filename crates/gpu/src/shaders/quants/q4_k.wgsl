// Q4_K: scales and minima for every 32 weights, then for each 64 weights 32 bytes: the low halves are the first 32.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 36u;
    let scale = scale_and_min(at, i >> 5u);
    let packed = weights[at + 4u + (i >> 6u) * 8u + (i & 31u) / 4u] >> (((i >> 5u) & 1u) * 4u);
    return scale.x * four_floats(four_nibbles(packed)) - scale.y;
}
