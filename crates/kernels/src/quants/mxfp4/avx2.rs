//! MXFP4 in AVX2.

use std::arch::x86_64::_mm256_set1_ps;

use super::{BlockMXFP4, DOUBLED_E2M1, half_e8m0};
use crate::activations::Q8Block;
use crate::x86::{dot_blocks, dot_signed, levels, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockMXFP4, x| {
        let weights = levels(&DOUBLED_E2M1, nibbles(&block.qs));
        sums.add(dot_signed(weights, x), _mm256_set1_ps(half_e8m0(block.e)), x);
    });
}
