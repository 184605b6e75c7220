//! Q5_1 in AVX2.

use std::arch::x86_64::_mm256_or_si256;

use super::BlockQ5_1;
use crate::activations::Q8Block;
use crate::x86::{dot_blocks, dot_unsigned, fifth_bits, halves, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ5_1, x| {
        let weights = _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh));
        sums.add_with_offset(dot_unsigned(weights, x), halves(block.d, block.m), x);
    });
}
