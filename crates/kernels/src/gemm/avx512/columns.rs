//! Columns in AVX-512: a register each.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Shl, Shr};

use super::super::column::array_at;
use super::super::{Column, ROWS, Rows};
use crate::block::Bytes;
use crate::x86::load_16;

/// Sixteen blocks. There are such rows, and the columns and floats that come of them, only on a CPU that
/// has the instructions: [`Self::new`] asks for that.
pub(in crate::gemm) struct Avx512Rows<'a, B>([&'a B; ROWS]);

impl<'a, B> Avx512Rows<'a, B> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(in crate::gemm) fn new(blocks: [&'a B; ROWS]) -> Self {
        Self(blocks)
    }
}

#[derive(Clone, Copy)]
pub(in crate::gemm) struct Column512(pub(in crate::gemm) __m512i);

#[derive(Clone, Copy)]
pub(in crate::gemm) struct Floats512(__m512);

impl<B: Bytes> Rows<B> for Avx512Rows<'_, B> {
    type Column = Column512;

    #[inline(always)]
    fn block(&self, r: usize) -> &B {
        self.0[r]
    }

    #[inline(always)]
    fn column(&self, offset: usize) -> Column512 {
        let mut rows = [0; ROWS];
        for (row, block) in rows.iter_mut().zip(self.0) {
            *row = i32::from_le_bytes(*array_at(block, offset));
        }
        // SAFETY: this CPU has the instructions, for there are `Avx512Rows`; reads the 64 bytes of the array.
        Column512(unsafe { _mm512_loadu_si512(rows.as_ptr().cast()) })
    }

    #[inline(always)]
    fn columns(&self, offset: usize) -> [Column512; 4] {
        // SAFETY: this CPU has the instructions, for there are `Avx512Rows`.
        unsafe { columns(&self.0, offset) }
    }
}

/// Transposes 16 times 4 dwords.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn columns<B: Bytes>(blocks: &[&B; ROWS], offset: usize) -> [Column512; 4] {
    let row = |r: usize| load_16(array_at(blocks[r], offset));
    // Every fourth row, so that the steps within lanes leave all rows in order.
    let lanes = |first: usize| {
        let lanes = _mm512_castsi128_si512(row(first));
        let lanes = _mm512_inserti32x4::<1>(lanes, row(first + 4));
        let lanes = _mm512_inserti32x4::<2>(lanes, row(first + 8));
        _mm512_inserti32x4::<3>(lanes, row(first + 12))
    };
    let (a, b, c, d) = (lanes(0), lanes(1), lanes(2), lanes(3));
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        Column512(_mm512_unpacklo_epi64(ab, cd)),
        Column512(_mm512_unpackhi_epi64(ab, cd)),
        Column512(_mm512_unpacklo_epi64(ab_high, cd_high)),
        Column512(_mm512_unpackhi_epi64(ab_high, cd_high)),
    ]
}

impl Column for Column512 {
    type Floats = Floats512;

    #[inline(always)]
    fn levels(self, levels: &[i8; 16]) -> Self {
        // SAFETY: this CPU has the instructions, for there is a column; reads the 16 bytes of the array.
        Self(unsafe {
            let levels = _mm512_broadcast_i32x4(_mm_loadu_si128(levels.as_ptr().cast()));
            _mm512_shuffle_epi8(levels, self.0)
        })
    }

    #[inline(always)]
    fn signed_byte(self, i: usize) -> Floats512 {
        let highest = self << (24 - 8 * i as u32);
        // SAFETY: this CPU has the instructions, for there is a column.
        Floats512(unsafe { _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(highest.0)) })
    }

    #[inline(always)]
    fn float(self) -> Floats512 {
        // SAFETY: this CPU has the instructions, for there is a column.
        Floats512(unsafe { _mm512_castsi512_ps(self.0) })
    }

    #[inline(always)]
    fn half(self) -> Floats512 {
        // SAFETY: this CPU has the instructions, for there is a column.
        Floats512(unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(self.0)) })
    }

    #[inline(always)]
    fn store(self, out: &mut [u8; 4 * ROWS]) {
        // SAFETY: this CPU has the instructions, for there is a column; writes the 64 bytes of the array.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), self.0) };
    }

    #[inline(always)]
    fn store_floats(x: Floats512, out: &mut [f32; ROWS]) {
        // SAFETY: this CPU has the instructions, for there are floats; writes the 16 floats of the array.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x.0) };
    }
}

impl BitOr for Column512 {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        // SAFETY: this CPU has the instructions, for there is a column.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }
}

impl Mul for Floats512 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: this CPU has the instructions, for there are floats.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
}

macro_rules! operator {
    ($operator:ident, $function:ident, $intrinsic:ident, $broadcast:ident) => {
        impl $operator<u32> for Column512 {
            type Output = Self;

            #[inline(always)]
            fn $function(self, other: u32) -> Self {
                // SAFETY: this CPU has the instructions, for there is a column.
                Self(unsafe { $intrinsic(self.0, $broadcast(other.cast_signed())) })
            }
        }
    };
}

operator!(Add, add, _mm512_add_epi32, _mm512_set1_epi32);
operator!(BitAnd, bitand, _mm512_and_si512, _mm512_set1_epi32);
operator!(BitXor, bitxor, _mm512_xor_si512, _mm512_set1_epi32);
operator!(Mul, mul, _mm512_mullo_epi32, _mm512_set1_epi32);
operator!(Shl, shl, _mm512_sll_epi32, _mm_cvtsi32_si128);
operator!(Shr, shr, _mm512_srl_epi32, _mm_cvtsi32_si128);
