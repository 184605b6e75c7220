//! Columns in AVX2: two registers each, for the first eight rows and for the others.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Shl, Shr};

use super::super::column::array_at;
use super::super::{Column, ROWS, Rows};
use crate::block::Bytes;
use crate::x86::load_16;

/// Sixteen blocks. There are such rows, and the columns and floats that come of them, only on a CPU that
/// has the instructions: [`Self::new`] asks for that.
pub(super) struct Avx2Rows<'a, B>([&'a B; ROWS]);

impl<'a, B> Avx2Rows<'a, B> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new(blocks: [&'a B; ROWS]) -> Self {
        Self(blocks)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Column256([__m256i; 2]);

#[derive(Clone, Copy)]
pub(super) struct Floats256([__m256; 2]);

impl<B: Bytes> Rows<B> for Avx2Rows<'_, B> {
    type Column = Column256;

    #[inline(always)]
    fn block(&self, r: usize) -> &B {
        self.0[r]
    }

    #[inline(always)]
    fn column(&self, offset: usize) -> Column256 {
        let mut rows = [[0; ROWS / 2]; 2];
        for (row, block) in rows.as_flattened_mut().iter_mut().zip(self.0) {
            *row = i32::from_le_bytes(*array_at(block, offset));
        }
        // SAFETY: this CPU has the instructions, for there are `Avx2Rows`; each reads the 32 bytes of an array.
        Column256(unsafe {
            [_mm256_loadu_si256(rows[0].as_ptr().cast()), _mm256_loadu_si256(rows[1].as_ptr().cast())]
        })
    }

    #[inline(always)]
    fn columns(&self, offset: usize) -> [Column256; 4] {
        let (first, others) = self.0.split_at(ROWS / 2);
        // SAFETY: this CPU has the instructions, for there are `Avx2Rows`.
        let ([a, b, c, d], [e, f, g, h]) = unsafe { (columns(first, offset), columns(others, offset)) };
        [Column256([a, e]), Column256([b, f]), Column256([c, g]), Column256([d, h])]
    }
}

/// Transposes 8 times 4 dwords.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns<B: Bytes>(blocks: &[&B], offset: usize) -> [__m256i; 4] {
    let row = |r: usize| load_16(array_at(blocks[r], offset));
    // Every fourth row, so that the steps within lanes leave all rows in order.
    let lanes = |first: usize| _mm256_set_m128i(row(first + 4), row(first));
    let (a, b, c, d) = (lanes(0), lanes(1), lanes(2), lanes(3));
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

impl Column for Column256 {
    type Floats = Floats256;

    #[inline(always)]
    fn levels(self, levels: &[i8; 16]) -> Self {
        let [a, b] = self.0;
        // SAFETY: this CPU has the instructions, for there is a column; reads the 16 bytes of the array.
        Self(unsafe {
            let levels = _mm256_broadcastsi128_si256(_mm_loadu_si128(levels.as_ptr().cast()));
            [_mm256_shuffle_epi8(levels, a), _mm256_shuffle_epi8(levels, b)]
        })
    }

    #[inline(always)]
    fn signed_byte(self, i: usize) -> Floats256 {
        let [a, b] = (self << (24 - 8 * i as u32)).0;
        // SAFETY: this CPU has the instructions, for there is a column.
        Floats256(unsafe {
            [_mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(a)), _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(b))]
        })
    }

    #[inline(always)]
    fn float(self) -> Floats256 {
        let [a, b] = self.0;
        // SAFETY: this CPU has the instructions, for there is a column.
        Floats256(unsafe { [_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)] })
    }

    #[inline(always)]
    fn half(self) -> Floats256 {
        let [a, b] = (self & 0xffff).0;
        // SAFETY: this CPU has the instructions, for there is a column.
        Floats256(unsafe {
            // Within each lane the numbers of `a`, then those of `b`.
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            [
                _mm256_cvtph_ps(_mm256_castsi256_si128(both)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(both)),
            ]
        })
    }

    #[inline(always)]
    fn store(self, out: &mut [u8; 4 * ROWS]) {
        for (half, out) in self.0.iter().zip(out.as_chunks_mut::<32>().0) {
            // SAFETY: this CPU has the instructions, for there is a column; writes the 32 bytes of the array.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *half) };
        }
    }

    #[inline(always)]
    fn store_floats(x: Floats256, out: &mut [f32; ROWS]) {
        for (half, out) in x.0.iter().zip(out.as_chunks_mut::<8>().0) {
            // SAFETY: this CPU has the instructions, for there are floats; writes the 8 floats of the array.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), *half) };
        }
    }
}

impl BitOr for Column256 {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        // SAFETY: this CPU has the instructions, for there is a column.
        Self(unsafe { [_mm256_or_si256(a, c), _mm256_or_si256(b, d)] })
    }
}

impl Mul for Floats256 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        // SAFETY: this CPU has the instructions, for there are floats.
        Self(unsafe { [_mm256_mul_ps(a, c), _mm256_mul_ps(b, d)] })
    }
}

macro_rules! operator {
    ($operator:ident, $function:ident, $intrinsic:ident, $broadcast:ident) => {
        impl $operator<u32> for Column256 {
            type Output = Self;

            #[inline(always)]
            fn $function(self, other: u32) -> Self {
                let [a, b] = self.0;
                // SAFETY: this CPU has the instructions, for there is a column.
                Self(unsafe {
                    let other = $broadcast(other.cast_signed());
                    [$intrinsic(a, other), $intrinsic(b, other)]
                })
            }
        }
    };
}

operator!(Add, add, _mm256_add_epi32, _mm256_set1_epi32);
operator!(BitAnd, bitand, _mm256_and_si256, _mm256_set1_epi32);
operator!(BitXor, bitxor, _mm256_xor_si256, _mm256_set1_epi32);
operator!(Mul, mul, _mm256_mullo_epi32, _mm256_set1_epi32);
operator!(Shl, shl, _mm256_sll_epi32, _mm_cvtsi32_si128);
operator!(Shr, shr, _mm256_srl_epi32, _mm_cvtsi32_si128);
