//! Quantization of activations in AVX2.

use std::arch::x86_64::*;

use super::{Q8_LEN, Q8Block, quantize_block, step};
use crate::x86::{load_f32, store_i8};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize(x: &[[f32; Q8_LEN]], out: &mut [Q8Block]) {
    for (x, block) in x.iter().zip(out) {
        let eights = x.as_chunks::<8>().0;
        let values = [load_f32(&eights[0]), load_f32(&eights[1]), load_f32(&eights[2]), load_f32(&eights[3])];
        let (scale, inverse) = step(largest_bits(&values));
        if !scale.is_finite() {
            // The conversion to integers makes something else of a NaN here.
            *block = quantize_block(x);
            continue;
        }
        let quants = round(&values, _mm256_set1_ps(inverse));
        block.scale = scale;
        block.sums = sums(quants);
        store_i8(&mut block.quants, quants);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest_bits(values: &[__m256; 4]) -> u32 {
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut largest = _mm256_setzero_si256();
    for &value in values {
        largest = _mm256_max_epu32(largest, _mm256_and_si256(_mm256_castps_si256(value), magnitude));
    }
    let four = _mm_max_epu32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256::<1>(largest));
    let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b10_11>(four));
    _mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32::<1>(two))).cast_unsigned()
}

/// The 32 values times `inverse`, rounded half to even, as signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn round([a, b, c, d]: &[__m256; 4], inverse: __m256) -> __m256i {
    let (a, b) = (_mm256_mul_ps(*a, inverse), _mm256_mul_ps(*b, inverse));
    let (c, d) = (_mm256_mul_ps(*c, inverse), _mm256_mul_ps(*d, inverse));
    let first = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    let second = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
    // Packing works on each half of the registers, which leaves the fours in this order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), order)
}

/// The sums of the first and of the second 16 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sums(quants: __m256i) -> [i16; 2] {
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), quants);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let eights = _mm256_hadd_epi32(fours, fours);
    let all = _mm256_hadd_epi32(eights, eights);
    [_mm256_extract_epi32::<0>(all) as i16, _mm256_extract_epi32::<4>(all) as i16]
}
