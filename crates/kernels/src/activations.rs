//! Activations in 8 bits, as every integer kernel takes them.
//!
//! One layout serves all weight formats, so an input is quantized once however many matrices read it.
//! One scale per 32 values: a scale per 256, as ggml's Q8_K has it, doubles the error and saves 2–4 %.

/// Values in an activation block.
pub const Q8_LEN: usize = 32;

/// 32 activations: `x[i] ≈ scale · quants[i]`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Q8Block {
    /// The step: largest magnitude / 127.
    pub scale: f32,
    /// Sums of the first and of the second 16 quants, for formats with a minimum or an offset.
    pub sums: [i16; 2],
    /// The values, −127 … 127.
    pub quants: [i8; Q8_LEN],
}

impl Q8Block {
    /// A block of zeros.
    pub const ZERO: Q8Block = Q8Block { scale: 0.0, sums: [0; 2], quants: [0; Q8_LEN] };

    /// Sum of all 32 quants.
    #[inline]
    pub fn sum(&self) -> i32 {
        i32::from(self.sums[0]) + i32::from(self.sums[1])
    }
}

/// Quantizes `x` into `out`, 32 values a block, rounding half to even.
///
/// # Panics
/// If `x.len() != 32 * out.len()`.
pub fn quantize_q8(x: &[f32], out: &mut [Q8Block]) {
    assert_eq!(x.len(), Q8_LEN * out.len(), "one activation block for every 32 values");
    for (x, block) in x.as_chunks::<Q8_LEN>().0.iter().zip(out) {
        let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = largest / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        block.scale = scale;
        for (q, v) in block.quants.iter_mut().zip(x) {
            *q = (v * inverse).round_ties_even() as i8;
        }
        let sum = |half: &[i8]| half.iter().map(|&q| i16::from(q)).sum();
        block.sums = [sum(&block.quants[..16]), sum(&block.quants[16..])];
    }
}
