//! Q5_K in AVX2.

use std::arch::x86_64::*;

use super::BlockQ5_K;
use crate::activations::Q8Block;
use crate::block::{blocks, by_few, of_tokens};
use crate::quants::q4_k::avx2::scale_offsets;
use crate::x86::{Sums, dot_unsigned, halves, load_32, prefetch_after, totals};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let row = blocks(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<const N: usize>(row: &[BlockQ5_K], x: &[Q8Block]) -> [f32; N] {
    assert_eq!(x.len(), N * 8 * row.len(), "eight activation blocks for every 256 weights");
    let (mut even, mut odd) = ([Sums::zero(); N], [Sums::zero(); N]);
    let low = _mm256_set1_epi8(15);
    let tokens = of_tokens::<_, N, 8>(x, row.len());
    for (b, block) in row.iter().enumerate() {
        let scales = scale_offsets(halves(block.d, block.dmin), &block.scales);
        let high = load_32(&block.qh);
        let mut bit = _mm256_set1_epi8(1);
        for (i, qs) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            prefetch_after(qs);
            let qs = load_32(qs);
            let first = _mm256_or_si256(_mm256_and_si256(qs, low), fifth(high, bit));
            bit = _mm256_add_epi8(bit, bit);
            let second = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<4>(qs), low), fifth(high, bit));
            bit = _mm256_add_epi8(bit, bit);
            for t in 0..N {
                let x = &tokens[t][b].as_chunks::<2>().0[i];
                even[t].add_with_offset(dot_unsigned(first, &x[0]), scales[2 * i], &x[0]);
                odd[t].add_with_offset(dot_unsigned(second, &x[1]), scales[2 * i + 1], &x[1]);
            }
        }
    }
    totals(even, odd)
}

/// 16 in the bytes that have `bit` set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fifth(high: __m256i, bit: __m256i) -> __m256i {
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(high, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}
