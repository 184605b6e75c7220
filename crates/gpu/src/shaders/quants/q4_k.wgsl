// Q4_K: scales and minima for every 32 weights, then for each 64 weights 32 bytes: the low halves are the first 32.

const BLOCK_LEN: u32 = 256u;

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = weights[block * 36u + 4u + (i >> 6u) * 8u + (i & 31u) / 4u];
    return four_nibbles(packed >> (((i >> 5u) & 1u) * 4u));
}

fn scale_and_offset(block: u32, i: u32) -> vec2<f32> {
    return step_and_offset(block * 36u, i >> 5u);
}
