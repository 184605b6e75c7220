//! Q2_0 in NEON.

use std::arch::aarch64::*;

use super::BlockQ2_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, less, load_16};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ2_0, i, x| {
        let bytes = load_16(&block.qs);
        let twice = if i == 0 { vzip1q_u8(bytes, bytes) } else { vzip2q_u8(bytes, bytes) };
        let weights = [quarters(vzip1q_u8(twice, twice)), quarters(vzip2q_u8(twice, twice))];
        sums.add(less(weights, 1), half(block.d), x);
    });
}

/// Of bytes that come four times each, first the lowest 2 bits, then the next, and so on.
#[inline]
#[target_feature(enable = "neon")]
fn quarters(bytes: uint8x16_t) -> int8x16_t {
    // To the left by a negative number is to the right.
    let shifts =
        vreinterpretq_s8_u32(vdupq_n_u32(u32::from_le_bytes([0, -2i8 as u8, -4i8 as u8, -6i8 as u8])));
    vreinterpretq_s8_u8(vandq_u8(vshlq_u8(bytes, shifts), vdupq_n_u8(3)))
}
