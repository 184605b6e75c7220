// Q5_K: as Q4_K, and before the halves of bytes the fifth bits: bit n of a byte belongs to the n-th 32 weights.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 44u;
    let scale = scale_and_min(at, i >> 5u);
    let in_run = (i & 31u) / 4u;
    let low = weights[at + 12u + (i >> 6u) * 8u + in_run] >> (((i >> 5u) & 1u) * 4u);
    let high = weights[at + 4u + in_run] >> (i >> 5u);
    return scale.x * four_floats(four_nibbles(low) | (four_bits(high) << 4u)) - scale.y;
}
