// Q1_0: a scale of half precision, and 128 bits: 1 where one is set and -1 where not.

const BLOCK_LEN: u32 = 128u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 9u;
    let bits = half_word(at + 1u + (i >> 4u)) >> (i & 15u);
    return half_float(at) * (2.0 * four_floats(spread_bits(bits)) - 1.0);
}
