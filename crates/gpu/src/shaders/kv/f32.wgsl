// Keys and values as 32-bit floats: one in a word.

const IN_WORD: u32 = 1u;
const HAS_SCALES: bool = false;

fn unpack(word: u32) -> vec2<f32> {
    return vec2(bitcast<f32>(word), 0.0);
}

fn pack(values: vec2<f32>) -> u32 {
    return bitcast<u32>(values.x);
}
