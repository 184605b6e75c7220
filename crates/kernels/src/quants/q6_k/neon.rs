//! Q6_K in NEON.

use std::arch::aarch64::*;

use super::BlockQ6_K;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, load_16, nibbles};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block]) -> f32 {
    dot_blocks::<_, 8>(row, x, |sums, block: &BlockQ6_K, i, x| {
        let (part, run) = (i / 4, i % 4);
        let ql = &block.ql.as_chunks::<16>().0[4 * part + 2 * (run % 2)..][..2];
        let qh = &block.qh.as_chunks::<16>().0[2 * part..][..2];
        let sixteen = |j: usize| {
            let low = nibbles(load_16(&ql[j]))[run / 2];
            // To the left by a negative number is to the right.
            let high = vshlq_u8(load_16(&qh[j]), vdupq_n_s8(4 - 2 * run as i8));
            let high = vreinterpretq_s8_u8(vandq_u8(high, vdupq_n_u8(0x30)));
            vsubq_s8(vorrq_s8(low, high), vdupq_n_s8(32))
        };
        let d = half(block.d);
        let scales = [d * f32::from(block.scales[2 * i]), d * f32::from(block.scales[2 * i + 1])];
        sums.add_halves([sixteen(0), sixteen(1)], scales, [0.0; 2], x);
    })
}
