//! From floats to the integers of a block, with the roundings of the reference (`ggml-quants.c`).
//!
//! A scale too small to be inverted makes the steps infinite; float-to-integer casts saturate, so the
//! block is then of no use but nothing panics.

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Numbers from 0 to `2 · offset − 1` with `x ≈ d · (q − offset)`. The value of largest magnitude decides
/// the sign of `d`, so that it falls on the end of the range that reaches further.
pub(super) fn signed(x: &[f32], offset: u8) -> (f32, [u8; 32]) {
    let d = largest_magnitude(x) / -f32::from(offset);
    let inverse = inverse(d);
    let top = 2 * offset - 1;
    (d, std::array::from_fn(|i| ((x[i] * inverse + (f32::from(offset) + 0.5)) as u8).min(top)))
}

/// Numbers from 0 to `top` with `x ≈ d · q + min`.
pub(super) fn unsigned(x: &[f32], top: u8) -> (f32, f32, [u8; 32]) {
    let min = x.iter().fold(x[0], |min, &v| if v < min { v } else { min });
    let max = x.iter().fold(x[0], |max, &v| if v > max { v } else { max });
    let d = (max - min) / f32::from(top);
    let inverse = inverse(d);
    (d, min, std::array::from_fn(|i| (((x[i] - min) * inverse + 0.5) as u8).min(top)))
}

/// Numbers from −127 to 127 with `x ≈ d · q`, halves rounded away from zero.
pub(super) fn eight_bits(x: &[f32]) -> (f32, [i8; 32]) {
    let d = x.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
    let inverse = inverse(d);
    (d, std::array::from_fn(|i| (x[i] * inverse).round() as i8))
}

/// Q8_K's: 256 numbers from −127 to 127 with `x ≈ d · q`, halves rounded to even. The value of largest
/// magnitude becomes −127.
pub(super) fn eight_bits_256(x: &[f32]) -> (f32, [i8; 256]) {
    let inverse = -127.0 / largest_magnitude(x);
    if inverse.is_infinite() {
        return (0.0, [0; 256]);
    }
    (1.0 / inverse, std::array::from_fn(|i| (x[i] * inverse).round_ties_even() as i8))
}

/// The first of the values that are furthest from 0, with its sign.
fn largest_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(x[0], |largest, &v| if v.abs() > largest.abs() { v } else { largest })
}
