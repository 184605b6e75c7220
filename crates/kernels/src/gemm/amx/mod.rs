//! Many tokens in tiles of bfloat16 (AMX).
//!
//! Weights are expanded to the panels of AVX-512 and from those to bfloat16, scales and minima folded in, so that products
//! of whole rows are sums of the tile unit alone, in 32-bit floats. Activations are rounded to bfloat16, which has an exponent
//! for each number: that is more exact than 8 bits with a scale for each 32.
//!
//! Weights in half precision, and what they meet, are [split](super::numbers::Split) in two numbers of bfloat16 each, and three of
//! the four products made: as exact as 16 digits are, at three times the work. Floats of 32 bits stay with AVX-512.

mod steps;

use std::arch::x86_64::*;

use super::avx512::{Avx512Rows, expand_floats, expand_quants};
use super::numbers::{Bf16, Bf16Panel, Bf16Tile, FloatPanel, PanelBlock, Split, SplitPanel, SplitTile};
use super::{Functions, Rows};
use crate::activations::Q8_LEN;
use crate::block::{FloatBlock, QuantBlock};
use crate::gemm::column::for_each_block;
use crate::tiles::{load, store_rounded};

/// The functions for blocks of quants.
pub(super) fn quants<B: QuantBlock>() -> Functions<Bf16> {
    Functions {
        // SAFETY: only `Gemm::of` asks, whose `Isa::Amx` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand_from_quants::<B>(rows, row_bytes, panel) },
        multiply: (),
    }
}

/// The functions for numbers that are bfloat16 in the file.
pub(super) fn bf16<B: FloatBlock>() -> Functions<Bf16> {
    Functions {
        // SAFETY: only `Gemm::of_floats` asks, whose `Isa::Amx` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand_from_bf16::<B>(rows, row_bytes, panel) },
        multiply: (),
    }
}

/// The functions for other floats.
pub(super) fn split<B: FloatBlock>() -> Functions<Split> {
    Functions {
        // SAFETY: only `Gemm::of_floats` asks, whose `Isa::Amx` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand_split::<B>(rows, row_bytes, panel) },
        multiply: (),
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn expand_from_quants<B: QuantBlock>(rows: &[u8], row_bytes: usize, panel: &mut [Bf16Panel]) {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    let mut quants = [PanelBlock::ZERO; 8];
    for_each_block::<B, _>(rows, row_bytes, panel, per_block, |blocks, panel| {
        let quants = &mut quants[..per_block];
        expand_quants(blocks, quants);
        panel.iter_mut().zip(quants).for_each(|(panel, quants)| panel.set_quants::<B>(quants));
    });
}

/// Numbers that are bfloat16 already go to their places two by two.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn expand_from_bf16<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [Bf16Panel]) {
    for_each_block::<B, _>(rows, row_bytes, panel, 1, |blocks, panel| {
        let rows = Avx512Rows::new(blocks);
        for (i, pairs) in panel[0].0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            for (column, pairs) in rows.columns(16 * i).into_iter().zip(pairs) {
                store(pairs, column.0);
            }
        }
    });
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn expand_split<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [SplitPanel]) {
    let mut floats = FloatPanel::ZERO;
    for_each_block::<B, _>(rows, row_bytes, panel, 1, |blocks, panel| {
        expand_floats(blocks, &mut floats);
        let [first, again, second] = &mut panel[0].0;
        for (i, two) in floats.0.as_chunks::<2>().0.iter().enumerate() {
            let [a, b] = two.each_ref().map(|x| _mm512_castps_si512(load(x)));
            let both = pair(a, b);
            store(&mut first.0[i], both);
            store(&mut again.0[i], both);
            store(&mut second.0[i], pair(lacking(a), lacking(b)));
        }
    });
}

/// What the upper halves of floats lack.
#[inline]
#[target_feature(enable = "avx512f")]
fn lacking(x: __m512i) -> __m512i {
    let upper = _mm512_and_si512(x, _mm512_set1_epi32(-1 << 16));
    _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(upper)))
}

/// Splits a token's activations, likewise.
///
/// # Panics
/// If this CPU has no bfloat16.
pub(super) fn set_split(tile: &mut [SplitTile], token: usize, x: &[f32]) {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn split(tile: &mut [SplitTile], token: usize, x: &[f32]) {
        for (tile, x) in tile.iter_mut().zip(x.as_chunks::<Q8_LEN>().0) {
            let [low, high] = x.as_chunks::<16>().0 else { continue };
            let [low, high] = [low, high].map(|x| _mm512_castps_si512(load(x)));
            let upper = |x| _mm512_and_si512(x, _mm512_set1_epi32(-1 << 16));
            let float = |x| _mm512_castsi512_ps(x);
            let [first, second, again] = &mut tile.0;
            store_rounded(float(upper(low)), float(upper(high)), &mut first.0[token]);
            store_rounded(float(lacking(low)), float(lacking(high)), &mut second.0[token]);
            again.0[token] = first.0[token];
        }
    }
    assert_bf16();
    // SAFETY: as asserted.
    unsafe { split(tile, token, x) };
}

fn assert_bf16() {
    assert!(
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
        "numbers of bfloat16"
    );
}

/// Rounds a token's activations to its rows of tiles, a block each.
///
/// # Panics
/// If this CPU has no bfloat16.
pub(super) fn set(tile: &mut [Bf16Tile], token: usize, x: &[f32]) {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn round(tile: &mut [Bf16Tile], token: usize, x: &[f32]) {
        for (tile, x) in tile.iter_mut().zip(x.as_chunks::<Q8_LEN>().0) {
            let [low, high] = x.as_chunks::<16>().0 else { continue };
            store_rounded(load(low), load(high), &mut tile.0[token]);
        }
    }
    assert_bf16();
    // SAFETY: as asserted.
    unsafe { round(tile, token, x) };
}

impl Bf16Panel {
    /// From quants plus 128 with their scales and minima.
    ///
    /// A quant is put in the upper part of a float's mantissa, below which there is 1: a multiplication and a subtraction make
    /// the weight of that. It is then cut to 16 bits, which makes it smaller by 0.5 · 2⁻⁷ of its power of two: by
    /// 0.5 / ln 2 · 2⁻⁸ of itself on average, and scales are larger by as much. Rounding to the nearest would be no more
    /// exact, but for a tenth.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
    fn set_quants<B: QuantBlock>(&mut self, quants: &PanelBlock) {
        const LONGER: f32 = 1.0 + 0.5 * std::f32::consts::LOG2_E / 256.0;
        let mut scales = [_mm512_setzero_ps(); 2];
        let mut offsets = [_mm512_setzero_ps(); 2];
        for half in 0..if B::HALVES { 2 } else { 1 } {
            let scale = _mm512_mul_ps(load(&quants.scales[half]), _mm512_set1_ps(LONGER));
            scales[half] = _mm512_mul_ps(scale, _mm512_set1_ps(256.0));
            offsets[half] = _mm512_mul_ps(scale, _mm512_set1_ps(256.0 + 128.0));
            if B::MINS {
                offsets[half] =
                    _mm512_fmadd_ps(load(&quants.mins[half]), _mm512_set1_ps(LONGER), offsets[half]);
            }
        }
        for (j, (four, pairs)) in quants.quants.iter().zip(self.0.as_chunks_mut::<2>().0).enumerate() {
            let half = if B::HALVES { j / 4 } else { 0 };
            // SAFETY: reads the 64 bytes of the reference, at any alignment.
            let four = unsafe { _mm512_loadu_si512(four.as_ptr().cast()) };
            let weight = |in_mantissa: __m512i| {
                let (mantissa, one) = (_mm512_set1_epi32(255 << 15), _mm512_set1_epi32(127 << 23));
                // (a & b) | c
                let x = _mm512_ternarylogic_epi32::<0xea>(in_mantissa, mantissa, one);
                _mm512_castps_si512(_mm512_fmsub_ps(_mm512_castsi512_ps(x), scales[half], offsets[half]))
            };
            let first = pair(weight(_mm512_slli_epi32::<15>(four)), weight(_mm512_slli_epi32::<7>(four)));
            let second = pair(weight(_mm512_srli_epi32::<1>(four)), weight(_mm512_srli_epi32::<9>(four)));
            store(&mut pairs[0], first);
            store(&mut pairs[1], second);
        }
    }
}

/// The upper halves of two floats of each row: the first in the lower 16 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn pair(first: __m512i, second: __m512i) -> __m512i {
    // a | (b & c)
    _mm512_ternarylogic_epi32::<0xf8>(_mm512_srli_epi32::<16>(first), second, _mm512_set1_epi32(-1 << 16))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [[u16; 2]; 16], x: __m512i) {
    // SAFETY: writes the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
}

#[cfg(test)]
mod tests;
