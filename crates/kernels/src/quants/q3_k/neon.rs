//! Q3_K in NEON.

use super::{BlockQ3_K, sub_scale};
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, less, or_where, pairs};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ3_K, i, x| {
        let low = pairs(&block.qs.as_chunks().0[i / 4], i % 4);
        let weights = less(or_where(low, &block.hmask, i, 4), 4);
        let scale = |j: usize| half(block.d) * f32::from(sub_scale(&block.scales, j));
        sums.add_halves(weights, [scale(2 * i), scale(2 * i + 1)], x);
    });
}
