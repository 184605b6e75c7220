//! `smmla`: each lane of a sum takes eight products. A register of sums is two rows by two tokens.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::{Group, Product, Quants, ROWS, RegisterTile, one_by_one};
use super::{AT_ONCE, Activations, Instruction, halves, multiply};
use crate::activations::Q8_LEN;
use crate::neon::{each, load_16, load_f32, store_16, store_f32};

// SAFETY (of the calls without another reason): NEON is in the baseline of the architecture.

/// A CPU that has the products of matrices of bytes.
#[derive(Clone, Copy)]
pub(in crate::gemm) struct Smmla(());

impl Instruction for Smmla {
    /// Two columns become one: a register then has eight bytes of each of two rows.
    #[inline(always)]
    fn arrange(quants: &mut [[u8; 4 * ROWS]; Q8_LEN / 4]) {
        for pair in quants.as_chunks_mut::<2>().0 {
            // SAFETY: as above.
            unsafe { interleave(pair) };
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
        let mut sums = [[unsafe { vdupq_n_s32(0) }; 4]; 2];
        for (i, pair) in quants[FROM..TO].as_chunks::<2>().0.iter().enumerate() {
            // SAFETY: as above.
            let x = unsafe { pairs(each(x, |x| &x.as_chunks::<8>().0[FROM / 2 + i])) };
            for (r, w) in pair[eight].as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: as above.
                let w = unsafe { vreinterpretq_s8_u8(load_16(w)) };
                for (sums, x) in sums.iter_mut().zip(x) {
                    // SAFETY: this CPU has the instruction, for there is an `Smmla`.
                    sums[r] = unsafe { smmla(sums[r], w, x) };
                }
            }
        }
        let [[a, b, c, d], [e, f, g, h]] = sums;
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn of_rows(x: &[f32; 8]) -> [float32x4_t; 8] {
        // SAFETY: as above.
        let [a, b, c, d] = unsafe {
            let [x, y] = halves(x);
            [vzip1q_f32(x, x), vzip2q_f32(x, x), vzip1q_f32(y, y), vzip2q_f32(y, y)]
        };
        [a, b, c, d, a, b, c, d]
    }

    #[inline(always)]
    fn of_tokens(x: &[f32; AT_ONCE]) -> [float32x4_t; 8] {
        // SAFETY: as above.
        let [a, b] = unsafe {
            let x = vreinterpretq_u64_f32(load_f32(x));
            let (first, second) = (vdupq_laneq_u64::<0>(x), vdupq_laneq_u64::<1>(x));
            [vreinterpretq_f32_u64(first), vreinterpretq_f32_u64(second)]
        };
        [a, a, a, a, b, b, b, b]
    }

    #[inline(always)]
    fn store(sums: [float32x4_t; 8], out: &mut [[f32; ROWS]; AT_ONCE], eight: usize) {
        let pairs = sums.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<2>().0);
        for (&[a, b, c, d], tokens) in pairs {
            let [first, second] = tokens;
            let first = &mut first.as_chunks_mut::<4>().0[2 * eight..];
            let second = &mut second.as_chunks_mut::<4>().0[2 * eight..];
            // SAFETY: as above.
            unsafe {
                store_f32(&mut first[0], vuzp1q_f32(a, b));
                store_f32(&mut first[1], vuzp1q_f32(c, d));
                store_f32(&mut second[0], vuzp2q_f32(a, b));
                store_f32(&mut second[1], vuzp2q_f32(c, d));
            }
        }
    }
}

impl RegisterTile for Smmla {
    #[target_feature(enable = "neon,i8mm")]
    unsafe fn multiply<const HALVES: bool, const MINS: bool>(group: Group<'_, Quants>, out: &mut [Product]) {
        let Group { panels, tile, n_tokens: n } = group;
        one_by_one(
            panels,
            tile,
            out,
            #[inline(always)]
            |panel, tile, out| multiply::<_, HALVES, MINS>(Smmla(()), panel, tile, n, out),
        );
    }
}

/// Makes one run of two columns: eight signed bytes of each row.
#[inline]
#[target_feature(enable = "neon")]
fn interleave(columns: &mut [[u8; 4 * ROWS]; 2]) {
    let fours = |column: &[u8; 4 * ROWS], i: usize| {
        let bytes = load_16(&column.as_chunks().0[i]);
        vreinterpretq_u32_u8(veorq_u8(bytes, vdupq_n_u8(128)))
    };
    let [first, second] = *columns;
    let run = columns.as_flattened_mut().as_chunks_mut::<16>().0;
    for (i, run) in run.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let (first, second) = (fours(&first, i), fours(&second, i));
        store_16(&mut run[0], vreinterpretq_u8_u32(vzip1q_u32(first, second)));
        store_16(&mut run[1], vreinterpretq_u8_u32(vzip2q_u32(first, second)));
    }
}

/// Eight activations of the first and of the second token, then of the third and of the fourth.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(x: [&[i8; 8]; AT_ONCE]) -> [int8x16_t; 2] {
    // SAFETY: reads the 8 bytes of each reference, at any alignment.
    let [a, b, c, d] = each(x, |x| unsafe { vld1_s8(x.as_ptr()) });
    [vcombine_s8(a, b), vcombine_s8(c, d)]
}

/// Adds to each sum the products of eight bytes of a row with eight of a token: `[row][token]`, each with two.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, rows: int8x16_t, tokens: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, which this function's instruction set has, on the registers named.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {rows:v}.16b, {tokens:v}.16b",
            sums = inout(vreg) sums,
            rows = in(vreg) rows,
            tokens = in(vreg) tokens,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}
