//! Q4_0 in NEON.

use super::BlockQ4_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, less, load_16, nibbles};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ4_0, _, x| {
        sums.add(less(nibbles(load_16(&block.qs)), 8), half(block.d), x);
    });
}
