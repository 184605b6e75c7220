//! NVFP4 in AVX2.

use std::arch::x86_64::{_mm_set1_ps, _mm256_permute4x64_epi64, _mm256_set_m128};

use super::{BlockNVFP4, half_e4m3};
use crate::activations::Q8Block;
use crate::block::{blocks, by_few, of_tokens};
use crate::quants::mxfp4::DOUBLED_E2M1;
use crate::x86::{Sums, dot_signed, levels, nibbles, totals};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let row = blocks(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<const N: usize>(row: &[BlockNVFP4], x: &[Q8Block]) -> [f32; N] {
    assert_eq!(x.len(), N * 2 * row.len(), "two activation blocks for every 64 weights");
    let mut sums = [[Sums::zero(); N]; 2];
    let tokens = of_tokens::<_, N, 2>(x, row.len());
    for (b, block) in row.iter().enumerate() {
        let halves = block.qs.as_chunks::<16>().0.iter().zip(block.d.as_chunks::<2>().0);
        for (i, ((qs, d), sums)) in halves.zip(&mut sums).enumerate() {
            // Eight low nibbles, the next eight, then the high ones of each: in pairs they belong together.
            let codes = _mm256_permute4x64_epi64::<0b11_01_10_00>(nibbles(qs));
            let scales = _mm256_set_m128(_mm_set1_ps(half_e4m3(d[1])), _mm_set1_ps(half_e4m3(d[0])));
            let weights = levels(&DOUBLED_E2M1, codes);
            for t in 0..N {
                let x = &tokens[t][b][i];
                sums[t].add(dot_signed(weights, x), scales, x);
            }
        }
    }
    totals(sums[0], sums[1])
}
