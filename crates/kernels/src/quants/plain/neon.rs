//! Plain floats in NEON. The compiler vectorises plain loops over them too, but it neither fuses a multiplication with
//! an addition nor finds the conversion from half precision.

use std::arch::aarch64::*;

use crate::neon::load_f32;

// SAFETY (of the calls below): NEON is in the baseline of the architecture.

pub(super) fn dot_f32(row: &[u8], x: &[f32], out: &mut [f32]) {
    // SAFETY: as above; reads the 16 bytes of the reference, at any alignment.
    each_token(row, x, out, |four: &[u8; 16]| unsafe { vreinterpretq_f32_u8(vld1q_u8(four.as_ptr())) });
}

pub(super) fn dot_f16(row: &[u8], x: &[f32], out: &mut [f32]) {
    // SAFETY: as above.
    each_token(row, x, out, |four| unsafe { vcvt_f32_f16(vreinterpret_f16_u16(load_u16(four))) });
}

pub(super) fn dot_bf16(row: &[u8], x: &[f32], out: &mut [f32]) {
    // SAFETY: as above.
    each_token(row, x, out, |four| unsafe {
        vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(load_u16(four))))
    });
}

/// 4 numbers of 16 bits.
#[inline]
#[target_feature(enable = "neon")]
fn load_u16(bytes: &[u8; 8]) -> uint16x4_t {
    // SAFETY: reads the 8 bytes of the reference, at any alignment.
    vreinterpret_u16_u8(unsafe { vld1_u8(bytes.as_ptr()) })
}

/// Each token by itself: a row of plain numbers is short enough to stay in the cache, and takes little unpacking.
#[inline(always)]
fn each_token<const FOUR: usize>(
    row: &[u8],
    x: &[f32],
    out: &mut [f32],
    widen: impl Fn(&[u8; FOUR]) -> float32x4_t,
) {
    for (x, out) in x.chunks_exact(row.len() / (FOUR / 4)).zip(out) {
        *out = dot(row, x, &widen);
    }
}

/// Of numbers of which four take `FOUR` bytes. Eight sums are under way, for each can take the next product only when
/// the addition before is done.
#[inline(always)]
fn dot<const FOUR: usize>(row: &[u8], x: &[f32], widen: impl Fn(&[u8; FOUR]) -> float32x4_t) -> f32 {
    assert_eq!(row.len(), FOUR / 4 * x.len(), "one activation for every weight");
    let ((row, row_rest), (x, x_rest)) = (row.as_chunks::<FOUR>(), x.as_chunks::<4>());
    // What is less than four is filled up with zeros.
    let (mut last_row, mut last_x) = ([0; FOUR], [0.0; 4]);
    last_row[..row_rest.len()].copy_from_slice(row_rest);
    last_x[..x_rest.len()].copy_from_slice(x_rest);
    // SAFETY: as above.
    let add = |sum, row, x| unsafe { vfmaq_f32(sum, widen(row), load_f32(x)) };
    // SAFETY: as above.
    let mut sums = [unsafe { vdupq_n_f32(0.0) }; 8];
    sums[7] = add(sums[7], &last_row, &last_x);
    let ((row, row_rest), (x, x_rest)) = (row.as_chunks::<8>(), x.as_chunks::<8>());
    for (row, x) in row.iter().zip(x) {
        for i in 0..8 {
            sums[i] = add(sums[i], &row[i], &x[i]);
        }
    }
    for ((sum, row), x) in sums.iter_mut().zip(row_rest).zip(x_rest) {
        *sum = add(*sum, row, x);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    // SAFETY: as above.
    unsafe {
        let (first, second) =
            (vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)), vaddq_f32(vaddq_f32(e, f), vaddq_f32(g, h)));
        vaddvq_f32(vaddq_f32(first, second))
    }
}
