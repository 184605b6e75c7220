// Q6_K: 256 numbers from -32 to 31, a signed byte as scale for every 16, and what these are multiples of. Each 128 numbers
// take 64 bytes for their low four bits, of which the low halves are the first 64, and 32 bytes for their high two: four
// runs of 32, the first lowest.

const BLOCK_LEN: u32 = 256u;

fn numbers4(block: u32, i: u32) -> u32 {
    let at = block * 105u;
    let in_run = (i & 31u) / 2u;
    let low = word(at + (i >> 7u) * 32u + ((i >> 5u) & 1u) * 16u + in_run) >> (((i >> 6u) & 1u) * 4u);
    let high = word(at + 64u + (i >> 7u) * 16u + in_run) >> (((i >> 5u) & 3u) * 2u);
    return four_less(four_nibbles(low) | (four_pairs(high) << 4u), 32u);
}

fn scale_at(block: u32, i: u32) -> f32 {
    let at = block * 105u;
    return half_float(at + 104u) * f32(bitcast<i32>(byte(at + 96u, i >> 4u) << 24u) >> 24u);
}
