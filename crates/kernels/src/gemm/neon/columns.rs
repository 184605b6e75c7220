//! Columns in NEON: four registers each, for four rows at a time.

use std::arch::aarch64::*;
use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Shl, Shr};

use super::super::column::array_at;
use super::super::{Column, ROWS, Rows};
use crate::block::Bytes;
use crate::neon::{each, levels_16, load_16, store_16, store_f32};

// SAFETY (of all the calls below): NEON is in the baseline of the architecture.

/// Sixteen blocks.
pub(super) struct NeonRows<'a, B>(pub(super) [&'a B; ROWS]);

#[derive(Clone, Copy)]
pub(super) struct Column128([uint32x4_t; 4]);

#[derive(Clone, Copy)]
pub(super) struct Floats128([float32x4_t; 4]);

impl<B: Bytes> Rows<B> for NeonRows<'_, B> {
    type Column = Column128;

    #[inline(always)]
    fn block(&self, r: usize) -> &B {
        self.0[r]
    }

    #[inline(always)]
    fn column(&self, offset: usize) -> Column128 {
        let mut rows = [[0; 16]; 4];
        let bytes = rows.as_flattened_mut().as_chunks_mut::<4>().0;
        for (bytes, block) in bytes.iter_mut().zip(self.0) {
            *bytes = *array_at(block, offset);
        }
        // SAFETY: as above.
        Column128(each(rows, |rows| unsafe { vreinterpretq_u32_u8(load_16(&rows)) }))
    }

    #[inline(always)]
    fn columns(&self, offset: usize) -> [Column128; 4] {
        let mut rows = [&[0; 16]; ROWS];
        for (row, block) in rows.iter_mut().zip(self.0) {
            *row = array_at(block, offset);
        }
        // SAFETY: as above.
        unsafe { transpose(rows) }
    }
}

/// Transposes 16 times 4 dwords.
#[inline]
#[target_feature(enable = "neon")]
fn transpose(rows: [&[u8; 16]; ROWS]) -> [Column128; 4] {
    let mut columns = [Column128([vdupq_n_u32(0); 4]); 4];
    for (i, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
        let [a, b, c, d] = each(*rows, |row| vreinterpretq_u32_u8(load_16(row)));
        let pairs = [vtrn1q_u32(a, b), vtrn1q_u32(c, d), vtrn2q_u32(a, b), vtrn2q_u32(c, d)];
        let [even, even_after, odd, odd_after] = each(pairs, |x| vreinterpretq_u64_u32(x));
        columns[0].0[i] = vreinterpretq_u32_u64(vtrn1q_u64(even, even_after));
        columns[1].0[i] = vreinterpretq_u32_u64(vtrn1q_u64(odd, odd_after));
        columns[2].0[i] = vreinterpretq_u32_u64(vtrn2q_u64(even, even_after));
        columns[3].0[i] = vreinterpretq_u32_u64(vtrn2q_u64(odd, odd_after));
    }
    columns
}

impl Column for Column128 {
    type Floats = Floats128;

    #[inline(always)]
    fn levels(self, levels: &[i8; 16]) -> Self {
        // SAFETY: as above.
        let of = |codes| unsafe { vreinterpretq_u32_s8(levels_16(levels, vreinterpretq_u8_u32(codes))) };
        Self(each(self.0, of))
    }

    #[inline(always)]
    fn signed_byte(self, i: usize) -> Floats128 {
        let highest = self << (24 - 8 * i as u32);
        // SAFETY: as above.
        Floats128(each(highest.0, |x| unsafe { vcvtq_f32_s32(vshrq_n_s32::<24>(vreinterpretq_s32_u32(x))) }))
    }

    #[inline(always)]
    fn float(self) -> Floats128 {
        // SAFETY: as above.
        Floats128(each(self.0, |x| unsafe { vreinterpretq_f32_u32(x) }))
    }

    #[inline(always)]
    fn half(self) -> Floats128 {
        // SAFETY: as above.
        Floats128(each(self.0, |x| unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(x))) }))
    }

    #[inline(always)]
    fn store(self, out: &mut [u8; 4 * ROWS]) {
        for (x, out) in self.0.into_iter().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: as above.
            unsafe { store_16(out, vreinterpretq_u8_u32(x)) };
        }
    }

    #[inline(always)]
    fn store_floats(x: Floats128, out: &mut [f32; ROWS]) {
        for (x, out) in x.0.into_iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: as above.
            unsafe { store_f32(out, x) };
        }
    }
}

impl BitOr for Column128 {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        // SAFETY: as above.
        Self(unsafe { [vorrq_u32(a, e), vorrq_u32(b, f), vorrq_u32(c, g), vorrq_u32(d, h)] })
    }
}

impl Mul for Floats128 {
    type Output = Self;

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        // SAFETY: as above.
        Self(unsafe { [vmulq_f32(a, e), vmulq_f32(b, f), vmulq_f32(c, g), vmulq_f32(d, h)] })
    }
}

macro_rules! operator {
    ($operator:ident, $function:ident, |$x:ident, $other:ident| $result:expr) => {
        impl $operator<u32> for Column128 {
            type Output = Self;

            #[inline(always)]
            fn $function(self, $other: u32) -> Self {
                // SAFETY: as above.
                Self(each(self.0, |$x| unsafe { $result }))
            }
        }
    };
}

operator!(Add, add, |x, n| vaddq_u32(x, vdupq_n_u32(n)));
operator!(BitAnd, bitand, |x, n| vandq_u32(x, vdupq_n_u32(n)));
operator!(BitXor, bitxor, |x, n| veorq_u32(x, vdupq_n_u32(n)));
operator!(Mul, mul, |x, n| vmulq_n_u32(x, n));
operator!(Shl, shl, |x, n| vshlq_u32(x, vdupq_n_s32(n.cast_signed())));
// To the left by a negative number is to the right.
operator!(Shr, shr, |x, n| vshlq_u32(x, vdupq_n_s32(-n.cast_signed())));
