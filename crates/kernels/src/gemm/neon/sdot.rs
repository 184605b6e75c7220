//! `sdot`: each lane of a sum takes four products. A register of sums is four rows by one token.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::{Group, Product, Quants, ROWS, RegisterTile, one_by_one};
use super::{AT_ONCE, Activations, Instruction, halves, multiply};
use crate::activations::Q8_LEN;
use crate::neon::{each, load_16, load_i8, store_16, store_f32};

// SAFETY (of the calls without another reason): NEON is in the baseline of the architecture.

/// A CPU that has the dot products of bytes.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Sdot(());

impl Instruction for Sdot {
    /// In place: a register has four bytes of each of four rows.
    #[inline(always)]
    fn arrange(quants: &mut [[u8; 4 * ROWS]; Q8_LEN / 4]) {
        for bytes in quants.as_flattened_mut().as_chunks_mut::<16>().0 {
            // SAFETY: as above.
            unsafe { store_16(bytes, veorq_u8(load_16(bytes), vdupq_n_u8(128))) };
        }
    }

    #[inline(always)]
    fn dots<const FROM: usize, const TO: usize>(
        self,
        quants: &[[u8; 4 * ROWS]; Q8_LEN / 4],
        x: Activations<'_>,
        eight: usize,
    ) -> [int32x4_t; 8] {
        // SAFETY: as above.
        let mut sums = [[unsafe { vdupq_n_s32(0) }; 2]; AT_ONCE];
        let columns = quants[FROM..TO].as_chunks::<4>().0;
        for (i, columns) in columns.iter().enumerate() {
            // SAFETY: as above.
            let x = each(x, |x| unsafe { load_i8(x) }[FROM / 4 + i]);
            let [a, b, c, d] = columns;
            let w = each([a, b, c, d], |column| {
                let rows = &column.as_chunks::<16>().0[2 * eight..];
                // SAFETY: as above.
                unsafe { [vreinterpretq_s8_u8(load_16(&rows[0])), vreinterpretq_s8_u8(load_16(&rows[1]))] }
            });
            self.add::<0>(&mut sums, w[0], x);
            self.add::<1>(&mut sums, w[1], x);
            self.add::<2>(&mut sums, w[2], x);
            self.add::<3>(&mut sums, w[3], x);
        }
        let [[a, b], [c, d], [e, f], [g, h]] = sums;
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn of_rows(x: &[f32; 8]) -> [float32x4_t; 8] {
        // SAFETY: as above.
        let [first, second] = unsafe { halves(x) };
        [first, second, first, second, first, second, first, second]
    }

    #[inline(always)]
    fn of_tokens(x: &[f32; AT_ONCE]) -> [float32x4_t; 8] {
        // SAFETY: as above.
        let [a, b, c, d] = each(*x, |x| unsafe { vdupq_n_f32(x) });
        [a, a, b, b, c, c, d, d]
    }

    #[inline(always)]
    fn store(sums: [float32x4_t; 8], out: &mut [[f32; ROWS]; AT_ONCE], eight: usize) {
        for (sums, out) in sums.as_chunks::<2>().0.iter().zip(out) {
            let out = &mut out.as_chunks_mut::<4>().0[2 * eight..];
            // SAFETY: as above.
            unsafe {
                store_f32(&mut out[0], sums[0]);
                store_f32(&mut out[1], sums[1]);
            }
        }
    }
}

impl RegisterTile for Sdot {
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn multiply<const HALVES: bool, const MINS: bool>(group: Group<'_, Quants>, out: &mut [Product]) {
        let Group { panels, tile, n_tokens: n } = group;
        one_by_one(
            panels,
            tile,
            out,
            #[inline(always)]
            |panel, tile, out| multiply::<_, HALVES, MINS>(Sdot(()), panel, tile, n, out),
        );
    }
}

impl Sdot {
    /// Adds the products of a column of eight rows with the `LANE`-th four activations of each token.
    #[inline(always)]
    fn add<const LANE: i32>(
        self,
        sums: &mut [[int32x4_t; 2]; AT_ONCE],
        w: [int8x16_t; 2],
        x: [int8x16_t; AT_ONCE],
    ) {
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, w) in sums.iter_mut().zip(w) {
                // SAFETY: this CPU has the instruction, for there is an `Sdot`.
                *sum = unsafe { sdot::<LANE>(*sum, w, x) };
            }
        }
    }
}

/// Adds to each sum the products of its four bytes of `w` with the `LANE`-th four of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const LANE: i32>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, which this function's instruction set has, on the registers named.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            w = in(vreg) w,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}
