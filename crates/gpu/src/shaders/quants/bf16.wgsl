// BF16: a block is one number, the upper half of a float.

const BLOCK_LEN: u32 = 1u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block + i;
    let pairs = vec2(word(at), word(at + 2u));
    return bitcast<vec4<f32>>(vec4(pairs.x << 16u, pairs.x & 0xffff0000u, pairs.y << 16u, pairs.y & 0xffff0000u));
}
