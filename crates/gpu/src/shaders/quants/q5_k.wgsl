// Q5_K: as Q4_K, and before the halves of bytes the fifth bits: bit n of a byte belongs to the n-th 32 weights.

const BLOCK_LEN: u32 = 256u;

fn numbers4(block: u32, i: u32) -> u32 {
    let at = block * 44u;
    let in_run = (i & 31u) / 4u;
    let low = weights[at + 12u + (i >> 6u) * 8u + in_run] >> (((i >> 5u) & 1u) * 4u);
    let high = weights[at + 4u + in_run] >> (i >> 5u);
    return four_nibbles(low) | (four_bits(high) << 4u);
}

fn scale_and_offset(block: u32, i: u32) -> vec2<f32> {
    return step_and_offset(block * 44u, i >> 5u);
}
