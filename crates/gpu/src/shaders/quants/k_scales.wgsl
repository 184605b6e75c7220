// The scales of Q4_K and Q5_K: two of half precision, then eight pairs of 6-bit numbers in 12 bytes. The first four scales
// are the low bits of bytes 0 to 3, the first four minima those of bytes 4 to 7; the others have their low four bits in bytes
// 8 to 11, and their high two in the top bits of bytes 0 to 7.

// The step of the 32 weights number `n` of a block that begins with word `at`, and their minimum.
fn step_and_offset(at: u32, n: u32) -> vec2<f32> {
    let shift = (n & 3u) * 8u;
    let scale = weights[at + 1u] >> shift;
    let minimum = weights[at + 2u] >> shift;
    var both = vec2(scale, minimum) & vec2(63u);
    if n >= 4u {
        let low = weights[at + 3u] >> shift;
        both = vec2(low & 15u, (low >> 4u) & 15u) | ((vec2(scale, minimum) >> vec2(2u)) & vec2(0x30u));
    }
    let step = unpack2x16float(weights[at]) * vec2<f32>(both);
    return vec2(step.x, -step.y);
}
