//! TQ1_0 in NEON.

use std::arch::aarch64::*;

use super::BlockTQ1_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, load_16};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockTQ1_0, i, x| {
        let short = load_16(&block.qs_short);
        let weights = match i {
            0..5 => {
                let qs = block.qs.as_chunks::<16>().0;
                [digits(load_16(&qs[0]), power(i)), digits(load_16(&qs[1]), power(i))]
            }
            5 | 6 => [digits(short, power(2 * (i - 5))), digits(short, power(2 * (i - 5) + 1))],
            _ => {
                let four = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(block.qh)));
                [digits(short, power(4)), digits(four, load_16(&POWERS_BY_FOUR))]
            }
        };
        sums.add(weights, half(block.d), x);
    });
}

const POWERS_BY_FOUR: [u8; 16] = [1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27];

/// 3ⁿ.
#[inline]
#[target_feature(enable = "neon")]
fn power(n: usize) -> uint8x16_t {
    vdupq_n_u8([1, 3, 9, 27, 81][n])
}

/// The digits that the scalar function of the name finds, with a power of 3 for each byte. A fraction's first digit
/// is 1 from a third of 256 on and 2 from two thirds on, and a comparison that holds is −1.
#[inline]
#[target_feature(enable = "neon")]
fn digits(bytes: uint8x16_t, powers: uint8x16_t) -> int8x16_t {
    let fractions = vmulq_u8(bytes, powers);
    let at_least = |n: u8| vreinterpretq_s8_u8(vcgeq_u8(fractions, vdupq_n_u8(n)));
    vsubq_s8(vsubq_s8(vdupq_n_s8(-1), at_least(86)), at_least(171))
}
