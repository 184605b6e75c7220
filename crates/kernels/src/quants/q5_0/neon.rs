//! Q5_0 in NEON.

use super::BlockQ5_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, five_bits, less};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ5_0, _, x| {
        sums.add(less(five_bits(&block.qs, block.qh), 16), half(block.d), x);
    });
}
