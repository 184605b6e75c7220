//! [`Integers`] of AVX2, and of AVX-512 with VNNI, and the products compiled for each.

use std::arch::x86_64::*;

use super::super::product::{Products, Scores, Sums, Values, Weights, weighted};
use super::super::x86::{Avx2, Avx512};
use super::product::{Integers, RowOf, scores};
use super::{Blocks, pack_query};
use crate::isa::Isa;

/// The products on AVX2: only for whoever knows that this CPU has it, with FMA and F16C.
pub(super) fn avx2<B: Blocks>(of_floats: Products) -> Products {
    Products {
        pack_query: |x| pack_query::<B>(Isa::Avx2, x),
        // SAFETY: the caller knows that this CPU has the instructions.
        scores: |of, out| unsafe { scores_256::<B>(of, out) },
        // SAFETY: as above.
        values: |of, sums| unsafe { values_256::<B>(of, sums) },
        ..of_floats
    }
}

/// The products on AVX-512: likewise, with what an [`Isa::Avx512`] proves.
pub(super) fn avx512<B: Blocks>(of_floats: Products) -> Products {
    Products {
        pack_query: |x| pack_query::<B>(Isa::Avx512, x),
        // SAFETY: the caller knows that this CPU has the instructions.
        scores: |of, out| unsafe { scores_512::<B>(of, out) },
        // SAFETY: as above.
        values: |of, sums| unsafe { values_512::<B>(of, sums) },
        ..of_floats
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn scores_256<B: Blocks>(of: Scores<'_>, out: &mut Weights) {
    scores::<_, B>(Avx2(()), of, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn values_256<B: Blocks>(of: Values<'_>, sums: Sums<'_>) {
    weighted::<_, RowOf<B>>(Avx2(()), of, sums);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn scores_512<B: Blocks>(of: Scores<'_>, out: &mut Weights) {
    scores::<_, B>(Avx512(()), of, out);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn values_512<B: Blocks>(of: Values<'_>, sums: Sums<'_>) {
    weighted::<_, RowOf<B>>(Avx512(()), of, sums);
}

// SAFETY (of all below): only the functions above and those of attention's `x86` make registers, and they are
// compiled for the instructions; of what is read the caller promises that it is there.

impl Integers for Avx2 {
    type I = __m256i;

    #[inline(always)]
    fn begin(self, _offset: f32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, keys: __m256i, query: f32) -> __m256i {
        // SAFETY: as above. One side must be unsigned, so the keys' signs are moved to the query.
        unsafe {
            let query = _mm256_castps_si256(_mm256_set1_ps(query));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(keys), _mm256_sign_epi8(query, keys));
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn to_float(self, x: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn nibbles(self, from: *const u8, upper: bool) -> __m256i {
        // SAFETY: as above.
        unsafe {
            let both = _mm256_loadu_si256(from.cast());
            let low = if upper { _mm256_srli_epi16::<4>(both) } else { both };
            _mm256_sub_epi8(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_set1_epi8(8))
        }
    }

    #[inline(always)]
    unsafe fn half(self, from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(from.cast::<i16>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn float_bytes(self, from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn float_nibbles(self, from: *const u8, upper: bool) -> __m256 {
        // SAFETY: as above.
        unsafe {
            let both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()));
            let low = _mm256_srl_epi32(both, _mm_cvtsi32_si128(4 * i32::from(upper)));
            let unsigned = _mm256_and_si256(low, _mm256_set1_epi32(15));
            _mm256_cvtepi32_ps(_mm256_sub_epi32(unsigned, _mm256_set1_epi32(8)))
        }
    }
}

impl Integers for Avx512 {
    type I = __m512i;

    #[inline(always)]
    fn begin(self, offset: f32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_castps_si512(_mm512_set1_ps(offset)) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, keys: __m512i, query: f32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, keys, _mm512_castps_si512(_mm512_set1_ps(query))) }
    }

    #[inline(always)]
    fn to_float(self, x: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn nibbles(self, from: *const u8, upper: bool) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let both = _mm512_loadu_si512(from.cast());
            let low = if upper { _mm512_srli_epi16::<4>(both) } else { both };
            _mm512_and_si512(low, _mm512_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn half(self, from: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(from.cast::<i16>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn float_bytes(self, from: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn float_nibbles(self, from: *const u8, upper: bool) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let both = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
            let low = _mm512_srl_epi32(both, _mm_cvtsi32_si128(4 * i32::from(upper)));
            let levels = _mm512_setr_ps(
                -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
            );
            // Looks at the lowest four bits alone.
            _mm512_permutexvar_ps(low, levels)
        }
    }
}
