// Q5_1: a scale and an offset of half precision, the fifth bits of 32 numbers, then the low four as in Q4_1.

const BLOCK_LEN: u32 = 32u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 6u;
    let scale = unpack2x16float(weights[at]);
    let low = weights[at + 2u + (i & 15u) / 4u] >> ((i >> 4u) * 4u);
    let numbers = four_nibbles(low) | (spread_bits(weights[at + 1u] >> i) << 4u);
    return scale.x * four_floats(numbers) + scale.y;
}
