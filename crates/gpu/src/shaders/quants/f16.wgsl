// F16: a block is one number.

const BLOCK_LEN: u32 = 1u;

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let at = block + i;
    return vec4(unpack2x16float(word(at)), unpack2x16float(word(at + 2u)));
}
