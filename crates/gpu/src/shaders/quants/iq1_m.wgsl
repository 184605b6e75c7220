// IQ1_M: the low eight bits of a code for each eight weights; four bits for each code, its high three and which way its
// weights are shifted; then four times two bytes, each with four 3-bit scales for 16 weights and a quarter of the block's.

const BLOCK_LEN: u32 = 256u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block * 28u;
    let n = i >> 3u;
    let nibble = (byte(at + 16u, i >> 4u) >> ((n & 1u) * 4u)) & 15u;
    let code = byte(at, n) | ((nibble & 7u) << 8u);
    let shift = select(1.0, -1.0, (nibble >> 3u) == 1u);
    let quarters = vec4(half_word(at + 24u), half_word(at + 25u), half_word(at + 26u), half_word(at + 27u)) >> vec4(12u);
    let bits = quarters.x | (quarters.y << 4u) | (quarters.z << 8u) | (quarters.w << 12u);
    let s = (half_word(at + 24u + (i >> 6u)) >> (((i >> 4u) & 3u) * 3u)) & 7u;
    let scale = unpack2x16float(bits).x * f32(2u * s + 1u) * 0.125;
    return scale * (four_signed(code * 2u + ((i >> 2u) & 1u), 0u) + shift);
}
