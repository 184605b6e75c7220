//! Q4_K in AVX-512, and the unpacking of its sub-scales, which are also Q5_K's.

use std::arch::x86_64::*;

use metallic_gguf::GgmlType;

use super::BlockQ4_K;
use crate::activations::Q8Group;
use crate::block::{QuantBlock, as_bytes};
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ4_K; 1]| {
        let bytes = fours_of_lanes(load_128(&block.qs), |block, half| block / 2 * 8 + 4 * half);
        let quants = nibbles_in_place(bytes, |block, _| block % 2 == 1);
        let steps = dwords(|i| if i < 8 && i % 2 == 1 { 1.0 / 16.0f32 } else { 1.0 }.to_bits());
        let scales = _mm512_mul_ps(scales_and_mins(block), _mm512_castsi512_ps(steps));
        weights(quants, scales)
    });
}

/// 256 weights of their quants and [`scales_and_mins`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::quants) fn weights(quants: [__m512i; 4], scales: __m512) -> Weights<true> {
    let mins = _mm512_permutexvar_ps(lanes_of(|block, _| 8 + block as u32), scales);
    let scales = _mm512_permutexvar_ps(lanes_of(|block, _| block as u32), scales);
    Weights::with_mins(quants, scales, mins)
}

/// `d · s` of the eight 32 weights of a block of Q4_K or Q5_K, then `dmin · m`. The block begins with `d`,
/// `dmin` and the twelve bytes that the scalar `scale_min` describes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::quants) fn scales_and_mins<B: QuantBlock>(block: &B) -> __m512 {
    const { assert!(matches!(B::TYPE, GgmlType::Q4_K | GgmlType::Q5_K)) };
    let Some(head) = as_bytes(std::slice::from_ref(block)).first_chunk() else {
        unreachable!("a block is longer")
    };
    let head = load_16(head);
    // Four low bits of the later fours of each eight, or all six of the earlier, and a byte with two high bits.
    let places = dwords(|i| match (i / 8, i % 8) {
        (min, j @ 0..4) => 0x8080_8000 | (4 + 4 * min + j) as u32,
        (min, j) => 0x8080_0000 | (256 * (4 * min + j) + 8 + j) as u32,
    });
    let bytes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(head), places);
    let low = _mm512_srlv_epi32(bytes, dwords(|i| if i >= 12 { 4 } else { 0 }));
    let high = _mm512_srli_epi32::<10>(bytes);
    let is_low = dwords(|i| if i % 8 < 4 { 63 } else { 15 });
    // is_low ? low : high, for each bit.
    let numbers = _mm512_ternarylogic_epi32::<0b1110_0100>(low, high, is_low);
    let d_dmin = _mm256_setr_epi64x(D, D, D + 0x0202_0202_0202_0202, D + 0x0202_0202_0202_0202);
    let d_dmin = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(head), d_dmin);
    _mm512_mul_ps(_mm512_cvtph_ps(d_dmin), _mm512_cvtepi32_ps(numbers))
}

/// The first two bytes, four times.
const D: i64 = 0x0100_0100_0100_0100;
