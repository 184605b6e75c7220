//! IQ4_XS in AVX2.

use std::arch::x86_64::{_mm256_mul_ps, _mm256_set1_ps};

use super::BlockIQ4_XS;
use crate::activations::Q8Block;
use crate::block::blocks;
use crate::quants::iq4_nl::LEVELS;
use crate::x86::{Sums, dot_signed, half, levels, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block]) -> f32 {
    let row = blocks::<BlockIQ4_XS>(row);
    assert_eq!(x.len(), 8 * row.len(), "eight activation blocks for every 256 weights");
    let mut sums = [Sums::zero(); 2];
    for (block, x) in row.iter().zip(x.as_chunks::<8>().0) {
        let d = half(block.d);
        for (i, (qs, x)) in block.qs.iter().zip(x).enumerate() {
            let scale = _mm256_mul_ps(d, _mm256_set1_ps(block.sub_scale(i).into()));
            sums[i % 2].add(dot_signed(levels(&LEVELS, nibbles(qs)), x), scale, x);
        }
    }
    sums[0].total(sums[1])
}
