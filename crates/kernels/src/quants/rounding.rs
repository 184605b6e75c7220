//! From floats to the integers of a block, with the roundings of the reference (`ggml-quants.c`).
//!
//! A scale too small to be inverted makes the steps infinite; integers are kept within their bounds, so the
//! block is then of no use but nothing panics.

#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Numbers from 0 to `2 · offset − 1` with `x ≈ d · (q − offset)`. The value of largest magnitude decides
/// the sign of `d`, so that it falls on the end of the range that reaches further.
#[inline(always)]
pub(super) fn signed(x: &[f32], offset: u8) -> (f32, [u8; 32]) {
    let d = largest_magnitude(x) / -f32::from(offset);
    let inverse = inverse(d);
    let top = 2 * offset.cast_signed() - 1;
    let mut quants = [0; 32];
    for (q, v) in quants.iter_mut().zip(x) {
        *q = truncate(v * inverse + (f32::from(offset) + 0.5), 0, top).cast_unsigned();
    }
    (d, quants)
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
#[inline(always)]
pub(super) fn eight_bits(x: &[f32]) -> (f32, [i8; 32]) {
    let d = f32::from_bits(largest_bits(x)) / 127.0;
    let inverse = inverse(d);
    let mut quants = [0; 32];
    for (q, v) in quants.iter_mut().zip(x) {
        *q = truncate((v * inverse).round(), -127, 127);
    }
    (d, quants)
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

/// The integer part of a number, within bounds; the upper one for what is no number. A plain cast has bounds too,
/// but does not vectorise.
#[inline(always)]
fn truncate(x: f32, least: i8, most: i8) -> i8 {
    let (least, most) = (f32::from(least), f32::from(most));
    let x = if x < most { x } else { most };
    let x = if x > least { x } else { least };
    // SAFETY: a number between two that an `i8` can hold.
    unsafe { x.to_int_unchecked::<i32>() as i8 }
}

/// The first of the values that are furthest from 0, with its sign.
#[inline(always)]
fn largest_magnitude(x: &[f32]) -> f32 {
    let largest = largest_bits(x);
    let place = |(i, v): (usize, &f32)| if v.abs().to_bits() == largest { i as u32 } else { u32::MAX };
    let first = x.iter().enumerate().map(place).fold(u32::MAX, u32::min);
    x[first as usize]
}

/// The bits of the largest magnitude: magnitudes compare as their bits do, and a NaN's are above all others.
/// Unlike comparing floats one after another, it vectorises.
#[inline(always)]
fn largest_bits(x: &[f32]) -> u32 {
    x.iter().fold(0, |largest, v| v.abs().to_bits().max(largest))
}
