// Keys and values as Q8_0: signed bytes, four in a word, that share scales.

const IN_WORD: u32 = 4u;
const HAS_SCALES: bool = true;

fn unpack(word: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word));
}
