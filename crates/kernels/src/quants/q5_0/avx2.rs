//! Q5_0 in AVX2.

use std::arch::x86_64::*;

use super::BlockQ5_0;
use crate::activations::Q8Block;
use crate::x86::{dot_blocks, dot_signed, fifth_bits, half, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ5_0, x| {
        let weights = _mm256_or_si256(nibbles(&block.qs), fifth_bits(block.qh));
        let weights = _mm256_sub_epi8(weights, _mm256_set1_epi8(16));
        sums.add(dot_signed(weights, x), half(block.d), x);
    });
}
