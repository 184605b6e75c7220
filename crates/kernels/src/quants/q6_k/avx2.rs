//! Q6_K in AVX2: the sub-scales are integers and so multiply the integer sums.

use std::arch::x86_64::*;

use super::BlockQ6_K;
use crate::activations::Q8Block;
use crate::block::{blocks, by_few, of_tokens};
use crate::x86::{Sums, half, load_32, pairs_signed, prefetch_after, totals};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let row = blocks(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<const N: usize>(row: &[BlockQ6_K], x: &[Q8Block]) -> [f32; N] {
    assert_eq!(x.len(), N * 8 * row.len(), "eight activation blocks for every 256 weights");
    let (mut even, mut odd) = ([Sums::zero(); N], [Sums::zero(); N]);
    let tokens = of_tokens::<_, N, 8>(x, row.len());
    for (b, block) in row.iter().enumerate() {
        let d = half(block.d);
        let halves = block.ql.as_chunks::<64>().0.iter().zip(block.qh.as_chunks::<32>().0);
        for (i, ((ql, qh), scales)) in halves.zip(block.scales.as_chunks::<8>().0).enumerate() {
            let scales = scales.as_chunks::<2>().0;
            prefetch_after(ql);
            prefetch_after(qh);
            let weights = unpack(ql.as_chunks::<32>().0, load_32(qh));
            for t in 0..N {
                let x = &tokens[t][b].as_chunks::<4>().0[i];
                even[t].add(dot_scaled(weights[0], scales[0], &x[0]), d, &x[0]);
                odd[t].add(dot_scaled(weights[1], scales[1], &x[1]), d, &x[1]);
                even[t].add(dot_scaled(weights[2], scales[2], &x[2]), d, &x[2]);
                odd[t].add(dot_scaled(weights[3], scales[3], &x[3]), d, &x[3]);
            }
        }
    }
    totals(even, odd)
}

/// Four runs of 32 weights, −32 … 31, as the block's layout has them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack(ql: &[[u8; 32]], qh: __m256i) -> [__m256i; 4] {
    let low = _mm256_set1_epi8(15);
    let high = _mm256_set1_epi8(0x30);
    let [a, b] = [load_32(&ql[0]), load_32(&ql[1])];
    let join = |low_bits, high_bits| {
        let joined = _mm256_or_si256(_mm256_and_si256(low_bits, low), _mm256_and_si256(high_bits, high));
        _mm256_sub_epi8(joined, _mm256_set1_epi8(32))
    };
    [
        join(a, _mm256_slli_epi16::<4>(qh)),
        join(b, _mm256_slli_epi16::<2>(qh)),
        join(_mm256_srli_epi16::<4>(a), qh),
        join(_mm256_srli_epi16::<4>(b), _mm256_srli_epi16::<2>(qh)),
    ]
}

/// Σ s · q · x in 8 lanes, with a scale for each 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_scaled(weights: __m256i, [a, b]: [i8; 2], x: &Q8Block) -> __m256i {
    let scales = _mm256_set_m128i(_mm_set1_epi16(b.into()), _mm_set1_epi16(a.into()));
    _mm256_madd_epi16(pairs_signed(weights, x), scales)
}
