//! Q4_0 in NEON.

use std::arch::aarch64::{vdupq_n_s8, vsubq_s8};

use super::BlockQ4_0;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, load_16, nibbles};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block]) -> f32 {
    dot_blocks::<_, 1>(row, x, |sums, block: &BlockQ4_0, _, x| {
        let [low, high] = nibbles(load_16(&block.qs));
        let offset = vdupq_n_s8(8);
        sums.add([vsubq_s8(low, offset), vsubq_s8(high, offset)], half(block.d), 0.0, x);
    })
}
