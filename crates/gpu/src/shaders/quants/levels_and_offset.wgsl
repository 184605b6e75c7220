// As `levels`, with an offset that is added to the 16: `scale_and_offset(block, i)`.

fn decode4(block: u32, i: u32) -> vec4<f32> {
    let scale = scale_and_offset(block, i);
    return scale.x * vec4<f32>(unpack4xI8(numbers4(block, i))) + scale.y;
}
