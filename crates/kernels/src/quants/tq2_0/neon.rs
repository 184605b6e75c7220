//! TQ2_0 in NEON.

use super::BlockTQ2_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, less, pairs};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockTQ2_0, i, x| {
        let weights = less(pairs(&block.qs.as_chunks().0[i / 4], i % 4), 1);
        sums.add(weights, half(block.d), x);
    });
}
