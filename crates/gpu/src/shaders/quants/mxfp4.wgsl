// MXFP4: the exponent of a scale, and 32 codes of four bits: the low halves of the bytes are the first 16. Blocks are 17
// bytes, so that they begin at any.

const BLOCK_LEN: u32 = 32u;

// Four bytes that begin with byte `at`.
fn word_from_byte(at: u32) -> u32 {
    let shift = (at & 3u) * 8u;
    let first = weights[at >> 2u] >> shift;
    if shift == 0u {
        return first;
    }
    return first | (weights[(at >> 2u) + 1u] << (32u - shift));
}

// Half of 2^(e - 127), because the levels are doubled. The two smallest are subnormal.
fn half_power(e: u32) -> f32 {
    return bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
}

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = word_from_byte(block * 17u + 1u + (i & 15u)) >> ((i >> 4u) * 4u);
    return four_numbers(four_nibbles(packed));
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_power(word_from_byte(block * 17u) & 0xffu);
}
