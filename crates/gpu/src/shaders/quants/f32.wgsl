// F32: a block is one number.

const BLOCK_LEN: u32 = 1u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block + i;
    return bitcast<vec4<f32>>(vec4(weights[at], weights[at + 1u], weights[at + 2u], weights[at + 3u]));
}
