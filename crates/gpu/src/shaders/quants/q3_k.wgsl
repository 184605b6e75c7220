// Q3_K: the third bits of 256 numbers from -4 to 3 (bit n of a byte belongs to the n-th 32), the low two as in Q2_K, 6-bit
// scales for every 16, and what these are multiples of.

const BLOCK_LEN: u32 = 256u;

// Number `n` of the scales, less 32: four low bits in the halves of eight bytes, two high bits in four bytes after them.
fn sub_scale(at: u32, n: u32) -> f32 {
    let low = (byte(at, n & 7u) >> ((n >> 3u) * 4u)) & 15u;
    let high = (byte(at + 4u, n & 3u) >> ((n >> 2u) * 2u)) & 3u;
    return f32(low | (high << 4u)) - 32.0;
}

fn numbers4(block: u32, i: u32) -> u32 {
    let at = block * 55u;
    let in_run = (i & 31u) / 2u;
    let low = word(at + 16u + (i >> 7u) * 16u + in_run) >> (((i >> 5u) & 3u) * 2u);
    let high = word(at + in_run) >> (i >> 5u);
    return four_less(four_pairs(low) | (four_bits(high) << 2u), 4u);
}

fn scale_at(block: u32, i: u32) -> f32 {
    let at = block * 55u;
    return half_float(at + 54u) * sub_scale(at + 48u, i >> 4u);
}
