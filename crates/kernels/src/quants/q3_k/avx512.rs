//! Q3_K in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ3_K;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ3_K; 1]| {
        let high = load_twice(&block.hmask);
        let pair = |i: usize| {
            let shift = 4 * (i as i64 % 2);
            let shifts = _mm512_mask_set1_epi64(_mm512_set1_epi64(shift), 0xf0, shift + 2);
            let low = _mm512_srlv_epi64(load_twice(&block.qs.as_chunks().0[i / 2]), shifts);
            let low = _mm512_and_si512(low, _mm512_set1_epi8(3));
            let bit = _mm512_set1_epi8(1 << (2 * i));
            let bit = _mm512_mask_add_epi8(bit, u64::MAX << 32, bit, bit);
            _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(high, bit), low, _mm512_set1_epi8(4))
        };
        let s = _mm512_sub_ps(floats_of_halves(sub_scales(&block.scales)), _mm512_set1_ps(32.0));
        let scales = _mm512_mul_ps(half(block.d), s);
        Weights::<false>::new([pair(0), pair(1), pair(2), pair(3)], scales, _mm512_set1_ps(4.0))
    });
}

/// The sixteen 6-bit numbers that the scalar function of the name describes, without taking 32 off.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sub_scales(packed: &[u8; 12]) -> __m128i {
    let fours = packed.as_chunks::<4>().0;
    let four = |i: usize| u32::from_le_bytes(fours[i]);
    let (a, b, c) = (four(0), four(1), four(2));
    let low = u64::from(a) | u64::from(b) << 32;
    let high = |shift: u32| {
        let (first, second) = (c >> shift & 0x0303_0303, c >> (shift + 2) & 0x0303_0303);
        (u64::from(first) | u64::from(second) << 32) << 4
    };
    let join = |low: u64, high: u64| (low & 0x0f0f_0f0f_0f0f_0f0f | high).cast_signed();
    _mm_set_epi64x(join(low >> 4, high(4)), join(low, high(0)))
}
