//! Q5_K in NEON.

use super::BlockQ5_K;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, or_where};
use crate::quants::bits::half;
use crate::quants::q4_k::{neon::four_bits, scale_min};

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ5_K, i, x| {
        let (scale, min) = scale_min(&block.scales, i);
        sums.add(or_where(four_bits(&block.qs, i), &block.qh, i, 16), half(block.d) * f32::from(scale), x);
        sums.subtract(half(block.dmin) * f32::from(min), x);
    });
}
