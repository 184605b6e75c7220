// Types whose weights are whole numbers times a scale, which 16 of them have in common. A type gives `numbers4(block, i)`: those of
// the weights i to i + 3, a byte with a sign for each; and `scale_at(block, i)`.

fn decode4(block: u32, i: u32) -> vec4<f32> {
    return scale_at(block, i) * vec4<f32>(unpack4xI8(numbers4(block, i)));
}

fn scale_and_offset(block: u32, i: u32) -> vec2<f32> {
    return vec2(scale_at(block, i), 0.0);
}
