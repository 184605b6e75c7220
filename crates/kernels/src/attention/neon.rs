//! [`Registers`] of NEON, and the products on it. The softmax of a step is the plain loop, which the compiler vectorises
//! for the baseline of the architecture as it is.

use std::arch::aarch64::*;
use std::arch::asm;

use super::element::Element;
use super::product::{Products, Registers, fold, pack, scores, weighted};
use super::softmax::Softmax;

/// NEON with the dot products of bytes, two registers at a time: the two of columns that a product takes are then four, and each splat of a row's
/// number serves all of them.
#[derive(Clone, Copy)]
pub(super) struct Neon(pub(super) ());

/// The products on NEON.
pub(super) fn products<E: Element>() -> Products {
    Products {
        numbers: E::NUMBERS,
        pack_query: pack::<E>,
        pack: pack::<E>,
        scores: |of, out| scores::<_, E>(Neon(()), of, out),
        values: |of, sums| weighted::<_, E>(Neon(()), of, sums),
        weigh: Softmax::weigh,
        fold: |sums, part, factors| fold(Neon(()), sums, part, factors),
    }
}

// SAFETY (of the calls without another reason): NEON is in the baseline of the architecture.

impl Registers for Neon {
    type V = [float32x4_t; 2];
    const LANES: usize = 8;
    /// Four registers of sums each, and there are 32.
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: as above.
        [unsafe { vdupq_n_f32(x) }; 2]
    }

    #[inline(always)]
    unsafe fn load<E: Element>(self, from: *const u8) -> Self::V {
        // SAFETY: as the caller promises.
        unsafe { E::load_neon(from) }
    }

    #[inline(always)]
    unsafe fn store(self, x: Self::V, to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { vst1q_f32_x2(to, float32x4x2_t(x[0], x[1])) };
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: a prefetch of any address is harmless.
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) from, options(readonly, nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: as above.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.mul_add(seconds(a), seconds(b), self.mul_add(firsts(a), firsts(b), c))
    }
}

/// The first of each pair of bfloat16.
#[inline(always)]
fn firsts([a, b]: [float32x4_t; 2]) -> [float32x4_t; 2] {
    // SAFETY: as above.
    let of = |x| unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(x))) };
    [of(a), of(b)]
}

/// The second of each pair.
#[inline(always)]
fn seconds([a, b]: [float32x4_t; 2]) -> [float32x4_t; 2] {
    // SAFETY: as above.
    let of =
        |x| unsafe { vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xffff_0000))) };
    [of(a), of(b)]
}
