//! Q1_0 in NEON.

use std::arch::aarch64::{vdupq_n_s8, vornq_s8};

use super::BlockQ1_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, masks};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ1_0, i, x| {
        let [a, b] = masks(block.qs.as_chunks().0[i]);
        // 1 where all bits are set, −1 where none is.
        let one = vdupq_n_s8(1);
        sums.add([vornq_s8(one, a), vornq_s8(one, b)], half(block.d), x);
    });
}
