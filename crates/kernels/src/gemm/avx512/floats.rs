//! The register tile of floats in AVX-512: 16 sums, and a register with a weight of each row.

use std::arch::x86_64::*;

use super::super::column::for_each_block;
use super::super::numbers::{FloatPanel, FloatTile};
use super::super::{Product, TOKENS};
use super::columns::Avx512Rows;
use super::{for_each_token, load_floats, prefetch_after};
use crate::block::FloatBlock;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn expand<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [FloatPanel]) {
    for_each_block(rows, row_bytes, panel, 1, |blocks, panel| {
        B::expand(&Avx512Rows::new(blocks), &mut panel[0]);
    });
}

/// The narrowest tile that holds `n` tokens. A token's result is the same in all of them.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn multiply(panel: &[FloatPanel], tile: &[FloatTile], n: usize, out: &mut Product) {
    match n {
        0..=4 => multiply_first::<4>(panel, tile, out),
        5..=8 => multiply_first::<8>(panel, tile, out),
        9..=12 => multiply_first::<12>(panel, tile, out),
        _ => multiply_first::<TOKENS>(panel, tile, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_first<const N: usize>(panel: &[FloatPanel], tile: &[FloatTile], out: &mut Product) {
    let mut acc = [_mm512_setzero_ps(); TOKENS];
    for (panel, tile) in panel.iter().zip(tile) {
        if N == TOKENS {
            prefetch_after(panel);
            prefetch_after(tile);
        }
        for (i, weights) in panel.0.iter().enumerate() {
            let weights = load_floats(weights);
            macro_rules! step {
                ($($token:literal),*) => {$(
                    if $token < N {
                        acc[$token] = _mm512_fmadd_ps(weights, _mm512_set1_ps(tile.0[$token][i]), acc[$token]);
                    }
                )*};
            }
            for_each_token!(step);
        }
    }
    for (out, acc) in out.iter_mut().zip(acc).take(N) {
        // SAFETY: writes the 16 floats of the reference, at any alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
    }
}
