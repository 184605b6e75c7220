//! Q6_K in NEON.

use std::arch::aarch64::{vorrq_s8, vshlq_n_s8};

use super::BlockQ6_K;
use crate::activations::Q8Block;
use crate::neon::{bits, dot_blocks, less, pairs};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ6_K, i, x| {
        let (part, run) = (i / 4, i % 4);
        let low = &block.ql.as_chunks::<16>().0[4 * part + 2 * (run % 2)..][..2];
        let high = pairs(&block.qh.as_chunks().0[part], run);
        let sixteen = |j: usize| vorrq_s8(bits(&low[j], 4 * (run / 2), 15), vshlq_n_s8::<4>(high[j]));
        let d = half(block.d);
        let scales = [d * f32::from(block.scales[2 * i]), d * f32::from(block.scales[2 * i + 1])];
        sums.add_halves(less([sixteen(0), sixteen(1)], 32), scales, x);
    });
}
