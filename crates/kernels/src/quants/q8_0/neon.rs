//! Q8_0 in NEON.

use super::BlockQ8_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, load_i8};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ8_0, _, x| {
        sums.add(load_i8(&block.qs), half(block.d), x);
    });
}
