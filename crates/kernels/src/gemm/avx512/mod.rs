//! The register tile in AVX-512 with VNNI: 16 sums, 8 registers of weights, the scales.

mod columns;
mod floats;

use std::arch::x86_64::*;

use columns::Avx512Rows;

use super::column::for_each_block;
use super::numbers::{PanelBlock, TileBlock};
use super::{Floats, Functions, Product, Quants, RegisterTile, TOKENS};
use crate::activations::Q8_LEN;
use crate::block::{FloatBlock, QuantBlock};

pub(super) fn quants<B: QuantBlock>() -> Functions<Quants> {
    Functions {
        // SAFETY: only `Gemm::of` asks, whose `Isa::Avx512` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand::<B>(rows, row_bytes, panel) },
        // SAFETY: likewise.
        multiply: unsafe { Avx512::multiply_of::<B>() },
    }
}

pub(super) fn floats<B: FloatBlock>() -> Functions<Floats> {
    Functions {
        // SAFETY: only `Gemm::of_floats` asks, whose `Isa::Avx512` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { floats::expand::<B>(rows, row_bytes, panel) },
        // SAFETY: likewise.
        multiply: |panel, tile, n, out| unsafe { floats::multiply(panel, tile, n, out) },
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn expand<B: QuantBlock>(rows: &[u8], row_bytes: usize, panel: &mut [PanelBlock]) {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    for_each_block(rows, row_bytes, panel, per_block, |blocks, panel| {
        B::expand(&Avx512Rows::new(blocks), panel);
    });
}

struct Avx512;

impl RegisterTile for Avx512 {
    /// In the narrowest tile that holds `n` tokens. A token's result is the same in all of them.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn multiply<const HALVES: bool, const MINS: bool>(
        panel: &[PanelBlock],
        tile: &[TileBlock],
        n: usize,
        out: &mut Product,
    ) {
        match n {
            0..=4 => multiply_first::<HALVES, MINS, 4>(panel, tile, out),
            5..=8 => multiply_first::<HALVES, MINS, 8>(panel, tile, out),
            9..=12 => multiply_first::<HALVES, MINS, 12>(panel, tile, out),
            _ => multiply_first::<HALVES, MINS, TOKENS>(panel, tile, out),
        }
    }
}

/// `step!(token)` for each token of a tile: written out, since the sums stay in registers only where
/// every index is a constant.
macro_rules! for_each_token {
    ($step:ident) => {
        $step!(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    };
}
use for_each_token;

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn multiply_first<const HALVES: bool, const MINS: bool, const N: usize>(
    panel: &[PanelBlock],
    tile: &[TileBlock],
    out: &mut Product,
) {
    let mut acc = [_mm512_setzero_ps(); TOKENS];
    for (panel, tile) in panel.iter().zip(tile) {
        if N == TOKENS {
            prefetch_after(panel);
            prefetch_after(tile);
        }
        let mut w = [_mm512_setzero_si512(); 8];
        for (w, bytes) in w.iter_mut().zip(&panel.quants) {
            *w = load(bytes);
        }
        let (scales, mins) = (panel.scales.each_ref(), panel.mins.each_ref());
        macro_rules! step {
            ($($token:literal),*) => {$(
                if $token < N {
                    let tile = &tile.0[$token];
                    let (x, scale) = (&tile.quants, _mm512_set1_ps(tile.scale));
                    let sum = |i: usize| _mm512_set1_ps(tile.sums[i]);
                    let offset = |i: usize| _mm512_set1_epi32(tile.offsets[i]);
                    if HALVES {
                        let first = dot(offset(0), [w[0], w[1], w[2], w[3]], x.first_chunk().unwrap_or(&[0; 16]));
                        let second = dot(offset(1), [w[4], w[5], w[6], w[7]], x.last_chunk().unwrap_or(&[0; 16]));
                        let both = _mm512_mul_ps(first, load_floats(scales[0]));
                        let both = _mm512_fmadd_ps(second, load_floats(scales[1]), both);
                        acc[$token] = _mm512_fmadd_ps(both, scale, acc[$token]);
                        if MINS {
                            acc[$token] = _mm512_fnmadd_ps(load_floats(mins[0]), sum(0), acc[$token]);
                            acc[$token] = _mm512_fnmadd_ps(load_floats(mins[1]), sum(1), acc[$token]);
                        }
                    } else {
                        let all = dot(offset(2), w, x);
                        let scale = _mm512_mul_ps(load_floats(scales[0]), scale);
                        acc[$token] = _mm512_fmadd_ps(all, scale, acc[$token]);
                        if MINS {
                            acc[$token] = _mm512_fnmadd_ps(load_floats(mins[0]), sum(2), acc[$token]);
                        }
                    }
                }
            )*};
        }
        for_each_token!(step);
    }
    for (out, acc) in out.iter_mut().zip(acc).take(N) {
        // SAFETY: writes the 16 floats of the reference, at any alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
    }
}

/// For each row: a sum that starts at `offset`, of 4 products for each register of weights, as float.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot<const N: usize, const LEN: usize>(offset: __m512i, w: [__m512i; N], x: &[i8; LEN]) -> __m512 {
    const { assert!(LEN == 4 * N) };
    let mut sum = offset;
    for (w, x) in w.into_iter().zip(x.as_chunks::<4>().0) {
        let x = _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
        sum = _mm512_dpbusd_epi32(sum, w, x);
    }
    _mm512_cvtepi32_ps(sum)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(x: &[f32; 16]) -> __m512 {
    // SAFETY: reads the 16 floats of the reference, at any alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Asks for the lines of the block that comes a few blocks after `block`. Tiles of long rows come from the
/// third-level cache, and each page of memory holds so few blocks that the hardware's look-ahead helps little.
/// With fewer tokens than fill the registers, the prefetches themselves cost more than they save.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_after<T>(block: &T) {
    const AHEAD: usize = 4;
    let ahead = std::ptr::from_ref(block).wrapping_add(AHEAD).cast::<i8>();
    for line in 0..size_of::<T>() / 64 {
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
    }
}
