//! NVFP4 in NEON.

use std::arch::aarch64::*;

use super::{BlockNVFP4, half_e4m3};
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, levels, load_16, nibbles};
use crate::quants::mxfp4::DOUBLED_E2M1;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockNVFP4, i, x| {
        // Low nibbles of the first and of the second half, then the high ones: the halves' belong together.
        let [low, high] = nibbles(load_16(&block.qs.as_chunks().0[i]));
        let (low, high) = (vreinterpretq_s64_s8(low), vreinterpretq_s64_s8(high));
        let codes = [vzip1q_s64(low, high), vzip2q_s64(low, high)];
        let codes = [vreinterpretq_s8_s64(codes[0]), vreinterpretq_s8_s64(codes[1])];
        let scales = [half_e4m3(block.d[2 * i]), half_e4m3(block.d[2 * i + 1])];
        sums.add_halves(levels(&DOUBLED_E2M1, codes), scales, x);
    });
}
