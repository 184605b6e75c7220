// Q2_K: a scale and a minimum of four bits each for every 16 weights, 256 numbers of two bits, and what these are multiples
// of. Each 128 numbers take 32 bytes: four runs of 32, the first lowest.

const BLOCK_LEN: u32 = 256u;

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = weights[block * 21u + 4u + (i >> 7u) * 8u + (i & 31u) / 4u];
    return four_pairs(packed >> (((i >> 5u) & 3u) * 2u));
}

fn scale_and_offset(block: u32, i: u32) -> vec2<f32> {
    let at = block * 21u;
    let both = weights[at + (i >> 6u)] >> (((i >> 4u) & 3u) * 8u);
    let scale = unpack2x16float(weights[at + 20u]) * vec2<f32>(vec2(both & 15u, (both >> 4u) & 15u));
    return vec2(scale.x, -scale.y);
}
