//! [`Registers`] of AVX2 and AVX-512, and the products compiled for each.

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use super::element::Element;
use super::product::{Products, Registers, Scores, Sums, Values, Weights, fold, pack, scores, weighted};
use super::softmax::Softmax;
use super::{POSITIONS, softmax_512};
use crate::isa::Isa;

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(pub(super) ());

/// AVX-512 with what AVX2 has.
#[derive(Clone, Copy)]
pub(super) struct Avx512(pub(super) ());

/// The products on an instruction set other than scalar.
pub(super) fn products<E: Element>(isa: Isa) -> Products {
    match isa {
        Isa::Avx512 if E::NUMBERS == 1 => avx512::<E>(),
        Isa::Avx512 if isa.has_bf16() => avx512_bf16::<E>(),
        _ => avx2::<E>(),
    }
}

macro_rules! products {
    ($name:ident, $registers:ident, $weigh:path, $pack:path, $features:literal) => {
        /// The products compiled for this instruction set: only for whoever knows that this CPU has it.
        fn $name<E: Element>() -> Products {
            #[target_feature(enable = $features)]
            fn scores_of<E: Element>(of: Scores<'_>, out: &mut Weights) {
                scores::<_, E>($registers(()), of, out);
            }
            #[target_feature(enable = $features)]
            fn values_of<E: Element>(of: Values<'_>, sums: Sums<'_>) {
                weighted::<_, E>($registers(()), of, sums);
            }
            #[target_feature(enable = $features)]
            fn fold_of(sums: &mut [f32], part: &[f32], factors: [f32; 2]) {
                fold($registers(()), sums, part, factors);
            }
            Products {
                numbers: E::NUMBERS,
                // SAFETY: the caller knows that this CPU has the instructions.
                pack_query: |x| unsafe { $pack(x) },
                // SAFETY: as above.
                pack: |weights| unsafe { $pack(weights) },
                // SAFETY: as above.
                scores: |of, out| unsafe { scores_of::<E>(of, out) },
                // SAFETY: as above.
                values: |of, sums| unsafe { values_of::<E>(of, sums) },
                // SAFETY: as above.
                weigh: |scores, visible| unsafe { $weigh(scores, visible) },
                // SAFETY: as above.
                fold: |sums, part, factors| unsafe { fold_of(sums, part, factors) },
            }
        }
    };
}

#[target_feature(enable = "avx2,fma,f16c")]
fn weigh_avx2(scores: &mut [f32; POSITIONS], visible: Range<usize>) -> Softmax {
    Softmax::weigh(scores, visible)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack_avx2<E: Element>(weights: &mut [f32; POSITIONS]) {
    pack::<E>(weights);
}

products!(avx2, Avx2, weigh_avx2, pack_avx2::<E>, "avx2,fma,f16c");
products!(
    avx512,
    Avx512,
    softmax_512::weigh,
    pack_avx2::<E>,
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq"
);
products!(
    avx512_bf16,
    Avx512,
    softmax_512::weigh,
    softmax_512::pack,
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"
);

// SAFETY (of the functions below that are not unsafe): only the functions above and those of `blocks::x86` make
// a value of these types, and they are compiled for the instructions; so whoever holds one may run them.

impl Registers for Avx2 {
    type V = __m256;
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load<E: Element>(self, from: *const u8) -> __m256 {
        // SAFETY: as the caller promises.
        unsafe { E::load_256(from) }
    }

    #[inline(always)]
    unsafe fn store(self, x: __m256, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: as above; a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_add_pairs(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as above.
        let first = |x| unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x))) };
        // SAFETY: as above.
        let second = |x| unsafe { _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(-1 << 16))) };
        self.mul_add(second(a), second(b), self.mul_add(first(a), first(b), c))
    }
}

impl Registers for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 12;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load<E: Element>(self, from: *const u8) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { E::load_512(from, __mmask16::MAX) }
    }

    #[inline(always)]
    unsafe fn store(self, x: __m512, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_first<E: Element>(self, from: *const u8, n: usize) -> __m512 {
        // SAFETY: as the caller promises.
        unsafe { E::load_512(from, first_lanes(n)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, x: __m512, to: *mut f32, n: usize) {
        // SAFETY: as the caller promises.
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(n), x) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: as above; a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul_add_pairs(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above, where `products` has asked for AVX512_BF16 too; the types have the same bits.
        unsafe { _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)) }
    }
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
fn first_lanes(n: usize) -> __mmask16 {
    if n >= 16 { __mmask16::MAX } else { (1 << n) - 1 }
}
