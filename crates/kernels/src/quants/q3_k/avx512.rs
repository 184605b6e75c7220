//! Q3_K in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ3_K;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ3_K; 1]| {
        let qs = load_64(&block.qs);
        let shifts = lanes_of(|block, _| 2 * (block % 4) as u32);
        let mut low = fours_of_lanes([qs, qs], |block, half| block / 4 * 8 + 4 * half);
        for bytes in &mut low {
            *bytes = _mm512_and_si512(_mm512_srlv_epi32(*bytes, shifts), _mm512_set1_epi8(3));
        }
        let quants = bits_of_blocks(low, &block.hmask, 4);
        let s = _mm512_sub_ps(floats_of_halves(sub_scales(&block.scales)), _mm512_set1_ps(32.0));
        let scales = _mm512_mul_ps(half(block.d), s);
        Weights::raised(quants, _mm512_set1_epi8(124), scales)
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
