//! Tiles of quants: the integers of a block are summed first, then scaled and added to the sums.

use std::arch::x86_64::*;

use super::super::column::for_each_block;
use super::super::numbers::{PanelBlock, TileBlock, TileRow};
use super::super::{Functions, Group, Product, Quants, ROWS, RegisterTile};
use super::columns::Avx512Rows;
use super::{Kernel, Part, load_floats, multiply};
use crate::activations::Q8_LEN;
use crate::block::QuantBlock;

/// Tokens at a time: with two panels their sums, of integers and of floats, take 24 registers.
const AT_ONCE: usize = 6;

pub(in crate::gemm) fn quants<B: QuantBlock>() -> Functions<Quants> {
    Functions {
        // SAFETY: only `Gemm::of` asks, whose `Isa::Avx512` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand::<B>(rows, row_bytes, panel) },
        // SAFETY: likewise.
        multiply: unsafe { Avx512::multiply_of::<B>() },
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn expand<B: QuantBlock>(rows: &[u8], row_bytes: usize, panel: &mut [PanelBlock]) {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    for_each_block(rows, row_bytes, panel, per_block, |blocks, panel| expand_block::<B>(blocks, panel));
}

/// Expands a block of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::gemm) fn expand_block<B: QuantBlock>(blocks: [&B; ROWS], panel: &mut [PanelBlock]) {
    B::expand(&Avx512Rows::new(blocks), panel);
}

struct Avx512;

impl RegisterTile for Avx512 {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn multiply<const HALVES: bool, const MINS: bool>(group: Group<'_, Quants>, out: &mut [Product]) {
        let Group { panels, tile, n_tokens: n } = group;
        multiply::<Blocks<HALVES, MINS>, AT_ONCE>(panels, tile, n, out);
    }
}

/// The kernel of formats that have these [`QuantBlock::HALVES`] and [`QuantBlock::MINS`].
struct Blocks<const HALVES: bool, const MINS: bool>;

impl<const HALVES: bool, const MINS: bool> Kernel for Blocks<HALVES, MINS> {
    type Panel = PanelBlock;
    type Tile = TileBlock;

    const STEP_BLOCKS: usize = 8;
    const BLOCKS_AHEAD: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn add<const P: usize, const T: usize>(
        part: &Part<'_, Self, P>,
        mut sums: [[__m512; P]; T],
    ) -> [[__m512; P]; T] {
        for i in 0..part.tile.len() {
            let (panels, tile) = part.block(i);
            let x = tile.0[part.first..].first_chunk().expect("a tile has so many tokens");
            if HALVES {
                add_columns::<0, 4, MINS, P, T>(panels, x, &mut sums);
                add_columns::<4, 8, MINS, P, T>(panels, x, &mut sums);
            } else {
                add_columns::<0, 8, MINS, P, T>(panels, x, &mut sums);
            }
        }
        sums
    }
}

/// Adds the products of the columns from `FROM` to `TO`: of one half of a block, or of all.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add_columns<const FROM: usize, const TO: usize, const MINS: bool, const P: usize, const T: usize>(
    panels: [&PanelBlock; P],
    x: &[TileRow; T],
    sums: &mut [[__m512; P]; T],
) {
    let (half, of_half) = const { if TO - FROM == 8 { (0, 2) } else { (FROM / 4, FROM / 4) } };
    let mut dots = [[_mm512_setzero_si512(); P]; T];
    for t in 0..T {
        dots[t] = [_mm512_set1_epi32(x[t].offsets[of_half]); P];
    }
    for j in FROM..TO {
        let mut w = [_mm512_setzero_si512(); P];
        for p in 0..P {
            w[p] = load(&panels[p].quants[j]);
        }
        for t in 0..T {
            let x = x[t].quants.as_chunks::<4>().0[j].map(i8::cast_unsigned);
            let x = _mm512_set1_epi32(i32::from_le_bytes(x));
            for p in 0..P {
                dots[t][p] = _mm512_dpbusd_epi32(dots[t][p], w[p], x);
            }
        }
    }
    for p in 0..P {
        let scales = load_floats(&panels[p].scales[half]);
        for t in 0..T {
            let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x[t].scale));
            sums[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t][p]), scale, sums[t][p]);
            if MINS {
                let sum = _mm512_set1_ps(x[t].sums[of_half]);
                sums[t][p] = _mm512_fnmadd_ps(load_floats(&panels[p].mins[half]), sum, sums[t][p]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}
