// NVFP4: four scales in eight bits, then for each 16 weights eight bytes of codes: the low halves are the first eight.

const BLOCK_LEN: u32 = 64u;

// Half of an E4M3 float, because the levels are doubled. Its sign is not used, but for the only NaN, which is taken as 0.
fn half_e4m3(bits: u32) -> f32 {
    let exponent = (bits >> 3u) & 15u;
    let fraction = bits & 7u;
    if bits == 0x7fu {
        return 0.0;
    }
    if exponent == 0u {
        return f32(fraction) / 1024.0;
    }
    return bitcast<f32>(((exponent + 119u) << 23u) | (fraction << 20u));
}

fn numbers4(block: u32, i: u32) -> u32 {
    let packed = weights[block * 9u + 1u + (i >> 4u) * 2u + (i & 7u) / 4u];
    return four_numbers(four_nibbles(packed >> (((i >> 3u) & 1u) * 4u)));
}

fn scale_at(block: u32, i: u32) -> f32 {
    return half_e4m3((weights[block * 9u] >> ((i >> 4u) * 8u)) & 0xffu);
}
