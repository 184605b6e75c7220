//! NVFP4 in AVX-512.

use std::arch::x86_64::*;

use super::BlockNVFP4;
use crate::activations::Q8Group;
use crate::quants::mxfp4::avx512::RAISED;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockNVFP4; 4]| {
        let four = |i: usize| i32::from_le_bytes(blocks[i].d);
        let d = half_e4m3(_mm_setr_epi32(four(0), four(1), four(2), four(3)));
        Weights::new(levels(&RAISED, codes(blocks)), d)
    });
}

/// The numbers of 4 bits of four blocks: of each eight bytes the low nibbles, then the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn codes(blocks: &[BlockNVFP4; 4]) -> [__m512i; 4] {
    let bytes = load_each(|i| &blocks[i / 2].qs.as_chunks().0[i % 2]);
    let [even, odd, ..] = fours_of_lanes(bytes, |block, half| 4 * block + 2 * half);
    let low = |bytes| _mm512_and_si512(bytes, _mm512_set1_epi8(15));
    let high = |bytes| low(_mm512_srli_epi32::<4>(bytes));
    [low(even), low(odd), high(even), high(odd)]
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
