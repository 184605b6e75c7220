// Keys and values as bfloat16: two in a word.

const IN_WORD: u32 = 2u;
const HAS_SCALES: bool = false;

fn unpack(word: u32) -> vec2<f32> {
    return bitcast<vec2<f32>>(vec2(word << 16u, word & 0xffff0000u));
}

// To the nearest, and of two as near to the even one.
fn pack(values: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(values);
    let nearest = bits + vec2(0x7fffu) + ((bits >> vec2(16u)) & vec2(1u));
    // What is no number must not become one.
    let is_broken = (bits & vec2(0x7fffffffu)) > vec2(0x7f800000u);
    let rounded = select(nearest, vec2(0x7fc00000u), is_broken);
    return (rounded.x >> 16u) | (rounded.y & 0xffff0000u);
}
