//! Many tokens in tiles of bfloat16 (AMX).
//!
//! Weights are expanded to the panels of AVX-512 and from those to bfloat16, scales and minima folded in, so that products
//! of whole rows are sums of the tile unit alone, in 32-bit floats. Activations are rounded to bfloat16, which has an exponent
//! for each number: that is more exact than 8 bits with a scale for each 32.
//!
//! **Never run on such a CPU yet**, and never timed: it was written where there is none. What makes tiles is tested against plain
//! loops; the unit itself is tested where there is one, and was by a program that does in its place what Intel's manual says of
//! each instruction. So it is used only where it is asked for (`--isa amx`).

pub(super) mod tiles;

use std::arch::x86_64::*;

use super::Functions;
use super::avx512::{expand_floats, expand_quants};
use super::numbers::{Bf16, Bf16Panel, FloatPanel, PanelBlock};
use crate::activations::Q8_LEN;
use crate::block::{FloatBlock, QuantBlock};
use crate::gemm::column::for_each_block;
use tiles::Tiles;

/// The functions for blocks of quants.
pub(super) fn quants<B: QuantBlock>() -> Functions<Bf16> {
    Functions {
        // SAFETY: only `Gemm::of` asks, whose `Isa::Amx` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand_from_quants::<B>(rows, row_bytes, panel) },
        multiply: Tiles::multiply,
    }
}

/// The functions for numbers that are bfloat16 in the file.
pub(super) fn floats<B: FloatBlock>() -> Functions<Bf16> {
    Functions {
        // SAFETY: only `Gemm::of_floats` asks, whose `Isa::Amx` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand_from_floats::<B>(rows, row_bytes, panel) },
        multiply: Tiles::multiply,
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

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn expand_from_floats<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [Bf16Panel]) {
    let mut floats = FloatPanel::ZERO;
    for_each_block::<B, _>(rows, row_bytes, panel, 1, |blocks, panel| {
        expand_floats(blocks, &mut floats);
        panel[0].set_floats(&floats);
    });
}

impl Bf16Panel {
    /// From quants plus 128 with their scales and minima.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
    fn set_quants<B: QuantBlock>(&mut self, quants: &PanelBlock) {
        for (j, (four, pairs)) in quants.quants.iter().zip(self.0.as_chunks_mut::<2>().0).enumerate() {
            let half = if B::HALVES { j / 4 } else { 0 };
            let scale = load(&quants.scales[half]);
            let offset = _mm512_mul_ps(_mm512_set1_ps(128.0), scale);
            let offset = if B::MINS { _mm512_add_ps(offset, load(&quants.mins[half])) } else { offset };
            // SAFETY: reads the 64 bytes of the reference, at any alignment.
            let four = unsafe { _mm512_loadu_si512(four.as_ptr().cast()) };
            let weight = |shift: u32| {
                let byte = _mm512_srlv_epi32(four, _mm512_set1_epi32(shift.cast_signed()));
                let byte = _mm512_and_si512(byte, _mm512_set1_epi32(255));
                _mm512_fmsub_ps(_mm512_cvtepi32_ps(byte), scale, offset)
            };
            store(&mut pairs[0], pair(weight(0), weight(8)));
            store(&mut pairs[1], pair(weight(16), weight(24)));
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
    fn set_floats(&mut self, floats: &FloatPanel) {
        for (two, pairs) in floats.0.as_chunks::<2>().0.iter().zip(&mut self.0) {
            store(pairs, pair(load(&two[0]), load(&two[1])));
        }
    }
}

/// Two floats of each row as bfloat16, rounded to the nearest: the first in the lower 16 bits. What is no number stays none.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn pair(first: __m512, second: __m512) -> __m512i {
    const TURNS: [u16; 32] = {
        let mut turns = [0; 32];
        let mut i = 0;
        while i < 32 {
            turns[i] = (i as u16 % 2) * 16 + i as u16 / 2;
            i += 1;
        }
        turns
    };
    // The instruction puts all of the first below all of the second.
    // SAFETY: both are 64 bytes, of which every bit pattern is valid.
    let both: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(second, first)) };
    // SAFETY: reads the 64 bytes of the constant, at any alignment.
    _mm512_permutexvar_epi16(unsafe { _mm512_loadu_si512(TURNS.as_ptr().cast()) }, both)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32; 16]) -> __m512 {
    // SAFETY: reads the 16 floats of the reference, at any alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [[u16; 2]; 16], x: __m512i) {
    // SAFETY: writes the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
}

#[cfg(test)]
mod tests;
