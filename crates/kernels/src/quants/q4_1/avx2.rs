//! Q4_1 in AVX2.

use super::BlockQ4_1;
use crate::activations::Q8Block;
use crate::x86::{dot_blocks, dot_unsigned, halves, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ4_1, x| {
        sums.add_with_offset(dot_unsigned(nibbles(&block.qs), x), halves(block.d, block.m), x);
    });
}
