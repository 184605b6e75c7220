// Keys and values of half precision: two in a word.

const IN_WORD: u32 = 2u;
const HAS_SCALES: bool = false;

fn unpack(word: u32) -> vec2<f32> {
    return unpack2x16float(word);
}

fn pack(values: vec2<f32>) -> u32 {
    return pack2x16float(values);
}
