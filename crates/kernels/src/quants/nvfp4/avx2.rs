//! NVFP4 in AVX2.

use std::arch::x86_64::{_mm_set1_ps, _mm256_permute4x64_epi64, _mm256_set_m128};

use super::{BlockNVFP4, half_e4m3};
use crate::activations::Q8Block;
use crate::block::blocks;
use crate::quants::mxfp4::DOUBLED_E2M1;
use crate::x86::{Sums, dot_signed, levels, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block]) -> f32 {
    let row = blocks::<BlockNVFP4>(row);
    assert_eq!(x.len(), 2 * row.len(), "two activation blocks for every 64 weights");
    let mut sums = [Sums::zero(); 2];
    for (block, x) in row.iter().zip(x.as_chunks::<2>().0) {
        let halves = block.qs.as_chunks::<16>().0.iter().zip(block.d.as_chunks::<2>().0);
        for ((qs, d), (x, sums)) in halves.zip(x.iter().zip(&mut sums)) {
            // Eight low nibbles, the next eight, then the high ones of each: in pairs they belong together.
            let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(nibbles(qs));
            let scales = _mm256_set_m128(_mm_set1_ps(half_e4m3(d[1])), _mm_set1_ps(half_e4m3(d[0])));
            sums.add(dot_signed(levels(&DOUBLED_E2M1, codes), x), scales, x);
        }
    }
    sums[0].total(sums[1])
}
