//! NVFP4 in AVX-512.

use std::arch::x86_64::*;

use super::BlockNVFP4;
use crate::activations::Q8Group;
use crate::quants::mxfp4::avx512::RAISED;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockNVFP4; 4]| {
        let pair = |i: usize| levels(&RAISED, codes(&blocks[i].qs));
        let four = |i: usize| i32::from_le_bytes(blocks[i].d);
        let d = half_e4m3(_mm_setr_epi32(four(0), four(1), four(2), four(3)));
        Weights::<false>::new([pair(0), pair(1), pair(2), pair(3)], d, _mm512_set1_ps(12.0))
    });
}

/// 64 numbers of 4 bits: of each eight bytes the low nibbles, then the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn codes(bytes: &[u8; 32]) -> __m512i {
    let twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), load_twice(bytes));
    let shifted = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4));
    _mm512_and_si512(shifted, _mm512_set1_epi8(15))
}

/// Half of the E4M3 float of each half of a block, as the scalar function of the name.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn half_e4m3(halves: __m128i) -> __m512 {
    let bytes = bytes_of_lanes(halves, |block, half| 2 * block + half);
    let is_number = _mm512_cmpneq_epi32_mask(bytes, _mm512_set1_epi32(0x7f));
    let bits = _mm512_and_si512(bytes, _mm512_set1_epi32(0x7f));
    // With the smallest exponent there is no 1 before the fraction, and the next exponent's step.
    let is_small = _mm512_cmplt_epi32_mask(bits, _mm512_set1_epi32(8));
    let normal = _mm512_add_epi32(_mm512_slli_epi32::<20>(bits), _mm512_set1_epi32(119 << 23));
    let number = _mm512_mask_add_epi32(normal, is_small, normal, _mm512_set1_epi32(1 << 23));
    let number = _mm512_castsi512_ps(number);
    let number = _mm512_mask_sub_ps(number, is_small, number, _mm512_set1_ps(1.0 / 128.0));
    _mm512_maskz_mov_ps(is_number, number)
}
