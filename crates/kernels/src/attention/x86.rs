//! [`Registers`] of AVX2 and AVX-512, and the product compiled for each.

use std::arch::x86_64::*;

use half::f16;

use super::product::{Matrix, Registers, Rows, Sums, multiply};

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
struct Avx2(());

/// AVX-512 with what AVX2 has.
#[derive(Clone, Copy)]
struct Avx512(());

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_avx2(rows: Rows<'_>, matrix: Matrix<'_>, sums: Sums<'_>) {
    multiply(Avx2(()), rows, matrix, sums);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn multiply_avx512(rows: Rows<'_>, matrix: Matrix<'_>, sums: Sums<'_>) {
    multiply(Avx512(()), rows, matrix, sums);
}

/// All of `x` if that fills a register, else a copy of it in `space`, which holds zeros.
#[inline(always)]
fn whole<'a, T: Copy, const N: usize>(x: &'a [T], space: &'a mut [T; N]) -> &'a [T; N] {
    match x.first_chunk() {
        Some(x) => x,
        None => {
            space.iter_mut().zip(x).for_each(|(space, x)| *space = *x);
            space
        }
    }
}

macro_rules! registers {
    (
        $isa:ty, $v:ty, $lanes:literal lanes,
        $set1:ident, $load:ident, $load_half:ident, $to_f32:ident, $store:ident, $mul:ident, $fmadd:ident
    ) => {
        impl Registers for $isa {
            type V = $v;
            const LANES: usize = $lanes;

            #[inline(always)]
            fn splat(self, x: f32) -> $v {
                // SAFETY: only the functions above make a value of this type, and they are compiled for
                // its instructions; so whoever holds one may run them. The same for those that follow.
                unsafe { $set1(x) }
            }

            #[inline(always)]
            fn load(self, x: &[f32]) -> $v {
                let mut space = [0.0; $lanes];
                let x: &[f32; $lanes] = whole(x, &mut space);
                // SAFETY: reads the floats of the reference, at any alignment.
                unsafe { $load(x.as_ptr()) }
            }

            #[inline(always)]
            fn load_f16(self, x: &[f16]) -> $v {
                let mut space = [f16::ZERO; $lanes];
                let x: &[f16; $lanes] = whole(x, &mut space);
                // SAFETY: reads the numbers of the reference, at any alignment.
                unsafe { $to_f32($load_half(x.as_ptr().cast())) }
            }

            #[inline(always)]
            fn store(self, x: $v, out: &mut [f32]) {
                let mut space = [0.0; $lanes];
                let (target, rest): (&mut [f32; $lanes], _) = match out.first_chunk_mut() {
                    Some(out) => (out, None),
                    None => (&mut space, Some(out)),
                };
                // SAFETY: writes the floats of the reference, at any alignment.
                unsafe { $store(target.as_mut_ptr(), x) };
                if let Some(out) = rest {
                    out.iter_mut().zip(space).for_each(|(out, x)| *out = x);
                }
            }

            #[inline(always)]
            fn mul(self, a: $v, b: $v) -> $v {
                // SAFETY: as for `splat`.
                unsafe { $mul(a, b) }
            }

            #[inline(always)]
            fn mul_add(self, a: $v, b: $v, c: $v) -> $v {
                // SAFETY: as for `splat`.
                unsafe { $fmadd(a, b, c) }
            }
        }
    };
}

registers!(
    Avx2, __m256, 8 lanes,
    _mm256_set1_ps, _mm256_loadu_ps, _mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps, _mm256_mul_ps,
    _mm256_fmadd_ps
);

registers!(
    Avx512, __m512, 16 lanes,
    _mm512_set1_ps, _mm512_loadu_ps, _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_storeu_ps, _mm512_mul_ps,
    _mm512_fmadd_ps
);
