//! [`Integers`] of NEON with the dot products of bytes, and the products on it.

use std::arch::aarch64::*;

use super::super::neon::Neon;
use super::super::product::{Products, Scores, Weights, weighted};
use super::product::{Integers, RowOf, scores};
use super::{Blocks, pack_query};
use crate::isa::Isa;
use crate::neon::add_products;

/// The products on NEON: only for whoever knows that this CPU has the dot products of bytes.
pub(super) fn products<B: Blocks>(of_floats: Products) -> Products {
    Products {
        pack_query: |x| pack_query::<B>(Isa::Neon, x),
        // SAFETY: the caller knows that this CPU has the instructions.
        scores: |of, out| unsafe { scores_of::<B>(of, out) },
        values: |of, sums| weighted::<_, RowOf<B>>(Neon(()), of, sums),
        ..of_floats
    }
}

#[target_feature(enable = "neon,dotprod")]
fn scores_of<B: Blocks>(of: Scores<'_>, out: &mut Weights) {
    scores::<_, B>(Neon(()), of, out);
}

// SAFETY (of the calls without another reason): NEON is in the baseline of the architecture, and of what is read the
// caller promises that it is there.

impl Integers for Neon {
    type I = [int8x16_t; 2];

    #[inline(always)]
    fn begin(self, _offset: f32) -> Self::I {
        // SAFETY: as above.
        [unsafe { vdupq_n_s8(0) }; 2]
    }

    #[inline(always)]
    fn dot(self, sums: Self::I, keys: Self::I, query: f32) -> Self::I {
        // SAFETY: as above; whoever has a `Neon` knows that this CPU has the dot products.
        unsafe {
            let query = vreinterpretq_s8_f32(vdupq_n_f32(query));
            let add =
                |sums, keys| vreinterpretq_s8_s32(add_products(vreinterpretq_s32_s8(sums), keys, query));
            [add(sums[0], keys[0]), add(sums[1], keys[1])]
        }
    }

    #[inline(always)]
    fn to_float(self, sums: Self::I) -> Self::V {
        // SAFETY: as above.
        let of = |sums| unsafe { vcvtq_f32_s32(vreinterpretq_s32_s8(sums)) };
        [of(sums[0]), of(sums[1])]
    }

    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> Self::I {
        // SAFETY: as above.
        unsafe { [vld1q_s8(from.cast()), vld1q_s8(from.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn nibbles(self, from: *const u8, upper: bool) -> Self::I {
        // SAFETY: as above.
        unsafe {
            let of = |both| {
                let unsigned = if upper { vshrq_n_u8::<4>(both) } else { vandq_u8(both, vdupq_n_u8(15)) };
                vsubq_s8(vreinterpretq_s8_u8(unsigned), vdupq_n_s8(8))
            };
            [of(vld1q_u8(from)), of(vld1q_u8(from.add(16)))]
        }
    }

    #[inline(always)]
    unsafe fn half(self, from: *const u8) -> Self::V {
        // SAFETY: as above.
        unsafe {
            let bits = vdup_n_u16(from.cast::<u16>().read_unaligned());
            [vcvt_f32_f16(vreinterpret_f16_u16(bits)); 2]
        }
    }

    #[inline(always)]
    unsafe fn float_bytes(self, from: *const u8) -> Self::V {
        // SAFETY: as above.
        unsafe { widen(vld1_s8(from.cast())) }
    }

    #[inline(always)]
    unsafe fn float_nibbles(self, from: *const u8, upper: bool) -> Self::V {
        // SAFETY: as above.
        unsafe {
            // To the left by a negative number is to the right.
            let low = vshl_u8(vld1_u8(from), vdup_n_s8(-4 * i8::from(upper)));
            let unsigned = vreinterpret_s8_u8(vand_u8(low, vdup_n_u8(15)));
            widen(vsub_s8(unsigned, vdup_n_s8(8)))
        }
    }
}

/// As floats.
#[inline(always)]
fn widen(x: int8x8_t) -> [float32x4_t; 2] {
    // SAFETY: as above.
    unsafe {
        let x = vmovl_s8(x);
        [vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_high_s16(x))]
    }
}
