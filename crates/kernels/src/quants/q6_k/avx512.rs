//! Q6_K in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ6_K;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ6_K; 1]| {
        let halves = |i: usize| unpack(&block.ql.as_chunks().0[i], &block.qh.as_chunks().0[i]);
        let ([a, b], [c, d]) = (halves(0), halves(1));
        let scales = _mm512_mul_ps(half(block.d), sub_scales(&block.scales));
        Weights::<false>::new([a, b, c, d], scales, _mm512_set1_ps(32.0))
    });
}

/// 128 weights, 0 … 63, as the block's layout has them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn unpack(ql: &[u8; 64], qh: &[u8; 32]) -> [__m512i; 2] {
    let (ql, qh) = (load_64(ql), load_twice(qh));
    let join = |low, high| {
        let low = _mm512_and_si512(low, _mm512_set1_epi8(15));
        _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi8(0x30)))
    };
    let first = _mm512_sllv_epi64(qh, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2));
    let second = _mm512_srlv_epi64(qh, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
    [join(ql, first), join(_mm512_srli_epi64::<4>(ql), second)]
}

/// The scale of each half of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sub_scales(scales: &[i8; 16]) -> __m512 {
    // SAFETY: reads the 16 bytes of the reference, at any alignment.
    let scales = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
    let lanes = lanes_of(|block, half| (2 * block + half) as u32);
    _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(lanes, scales))
}
