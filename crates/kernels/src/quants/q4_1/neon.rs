//! Q4_1 in NEON.

use super::BlockQ4_1;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, load_16, nibbles};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ4_1, _, x| {
        sums.add(nibbles(load_16(&block.qs)), half(block.d), x);
        sums.subtract(-half(block.m), x);
    });
}
