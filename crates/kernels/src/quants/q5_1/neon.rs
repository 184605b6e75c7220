//! Q5_1 in NEON.

use super::BlockQ5_1;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, five_bits};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ5_1, _, x| {
        sums.add(five_bits(&block.qs, block.qh), half(block.d), x);
        sums.subtract(-half(block.m), x);
    });
}
