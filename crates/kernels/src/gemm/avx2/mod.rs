//! The register tile in AVX2: eight rows by four tokens at a time.
//!
//! There is no instruction that adds four products of bytes. The one that adds two saturates at 16 bits, and
//! wants one side unsigned: so the weights' signs are moved to the activations, and |−128| · 127 · 2 fits.

mod columns;

use std::arch::x86_64::*;

use columns::Avx2Rows;

use super::column::for_each_block;
use super::numbers::{FloatPanel, FloatTile, PanelBlock, TileBlock, TileRow};
use super::{Floats, Functions, Group, Product, Quants, RegisterTile, one_by_one};
use crate::activations::Q8_LEN;
use crate::block::{FloatBlock, QuantBlock};
use crate::x86::{load_32, load_f32};

/// Tokens at a time: four sums and the weights' and activations' registers are all there are.
const AT_ONCE: usize = 4;

pub(super) fn quants<B: QuantBlock>() -> Functions<Quants> {
    Functions {
        // SAFETY: only `Gemm::of` asks, whose `Isa::Avx2` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand::<B>(rows, row_bytes, panel) },
        // SAFETY: likewise.
        multiply: unsafe { Avx2::multiply_of::<B>() },
    }
}

pub(super) fn floats<B: FloatBlock>() -> Functions<Floats> {
    Functions {
        // SAFETY: only `Gemm::of_floats` asks, whose `Isa::Avx2` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand_floats::<B>(rows, row_bytes, panel) },
        multiply: |group, out| {
            let Group { panels, tile, n_tokens: n } = group;
            // SAFETY: likewise.
            one_by_one(panels, tile, out, |panel, tile, out| unsafe { multiply_floats(panel, tile, n, out) });
        },
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn expand<B: QuantBlock>(rows: &[u8], row_bytes: usize, panel: &mut [PanelBlock]) {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    for_each_block(rows, row_bytes, panel, per_block, |blocks, panel| {
        B::expand(&Avx2Rows::new(blocks), panel);
    });
}

#[target_feature(enable = "avx2,fma,f16c")]
fn expand_floats<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [FloatPanel]) {
    for_each_block(rows, row_bytes, panel, 1, |blocks, panel| {
        B::expand(&Avx2Rows::new(blocks), &mut panel[0]);
    });
}

struct Avx2;

impl RegisterTile for Avx2 {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn multiply<const HALVES: bool, const MINS: bool>(group: Group<'_, Quants>, out: &mut [Product]) {
        let Group { panels, tile, n_tokens: n } = group;
        one_by_one(panels, tile, out, |panel, tile, out| {
            let fours = out.as_chunks_mut::<AT_ONCE>().0.iter_mut().enumerate();
            for (four, out) in fours.take(n.div_ceil(AT_ONCE)) {
                for eight in 0..2 {
                    multiply_part::<HALVES, MINS>(panel, tile, four, eight, out);
                }
            }
        });
    }
}

/// The products of the `eight`-th 8 rows and the `four`-th 4 tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_part<const HALVES: bool, const MINS: bool>(
    panel: &[PanelBlock],
    tile: &[TileBlock],
    four: usize,
    eight: usize,
    out: &mut [[f32; 16]; AT_ONCE],
) {
    let of_rows = |x: &[f32; 16]| load_f32(&x.as_chunks::<8>().0[eight]);
    let mut acc = [_mm256_setzero_ps(); AT_ONCE];
    for (panel, tile) in panel.iter().zip(tile) {
        let x = &tile.0.as_chunks::<AT_ONCE>().0[four];
        let scales = of_rows(&panel.scales[0]);
        if HALVES {
            let (first, second) = (dot::<0, 4>(panel, x, eight), dot::<4, 8>(panel, x, eight));
            for t in 0..AT_ONCE {
                let both = _mm256_mul_ps(first[t], scales);
                let both = _mm256_fmadd_ps(second[t], of_rows(&panel.scales[1]), both);
                acc[t] = _mm256_fmadd_ps(both, _mm256_set1_ps(x[t].scale), acc[t]);
                if MINS {
                    acc[t] = _mm256_fnmadd_ps(of_rows(&panel.mins[0]), _mm256_set1_ps(x[t].sums[0]), acc[t]);
                    acc[t] = _mm256_fnmadd_ps(of_rows(&panel.mins[1]), _mm256_set1_ps(x[t].sums[1]), acc[t]);
                }
            }
        } else {
            let all = dot::<0, 8>(panel, x, eight);
            for t in 0..AT_ONCE {
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x[t].scale));
                acc[t] = _mm256_fmadd_ps(all[t], scale, acc[t]);
                if MINS {
                    acc[t] = _mm256_fnmadd_ps(of_rows(&panel.mins[0]), _mm256_set1_ps(x[t].sums[2]), acc[t]);
                }
            }
        }
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        store(&mut out.as_chunks_mut::<8>().0[eight], acc);
    }
}

/// For each token and row the sum of the products from column `FROM` to `TO`, as float.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<const FROM: usize, const TO: usize>(
    panel: &PanelBlock,
    x: &[TileRow; AT_ONCE],
    eight: usize,
) -> [__m256; AT_ONCE] {
    let mut sums = [_mm256_setzero_si256(); AT_ONCE];
    for j in FROM..TO {
        let unsigned = load_32(&panel.quants[j].as_chunks::<32>().0[eight]);
        let weights = _mm256_xor_si256(unsigned, _mm256_set1_epi8(-128));
        let magnitudes = _mm256_abs_epi8(weights);
        for (sum, x) in sums.iter_mut().zip(x) {
            let x = x.quants.as_chunks::<4>().0[j];
            let x = _mm256_set1_epi32(i32::from_le_bytes([
                x[0].cast_unsigned(),
                x[1].cast_unsigned(),
                x[2].cast_unsigned(),
                x[3].cast_unsigned(),
            ]));
            let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, weights));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
    }
    let mut floats = [_mm256_setzero_ps(); AT_ONCE];
    for (float, sum) in floats.iter_mut().zip(sums) {
        *float = _mm256_cvtepi32_ps(sum);
    }
    floats
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_floats(panel: &[FloatPanel], tile: &[FloatTile], n: usize, out: &mut Product) {
    for (four, out) in out.as_chunks_mut::<AT_ONCE>().0.iter_mut().enumerate().take(n.div_ceil(AT_ONCE)) {
        let mut acc = [[_mm256_setzero_ps(); 2]; AT_ONCE];
        for (panel, tile) in panel.iter().zip(tile) {
            let x = &tile.0.as_chunks::<AT_ONCE>().0[four];
            for (i, weights) in panel.0.iter().enumerate() {
                let weights = weights.as_chunks::<8>().0;
                let (first, second) = (load_f32(&weights[0]), load_f32(&weights[1]));
                for (acc, x) in acc.iter_mut().zip(x) {
                    let x = _mm256_set1_ps(x[i]);
                    acc[0] = _mm256_fmadd_ps(first, x, acc[0]);
                    acc[1] = _mm256_fmadd_ps(second, x, acc[1]);
                }
            }
        }
        for (out, acc) in out.iter_mut().zip(acc) {
            for (out, acc) in out.as_chunks_mut::<8>().0.iter_mut().zip(acc) {
                store(out, acc);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(out: &mut [f32; 8], x: __m256) {
    // SAFETY: writes the 8 floats of the reference, at any alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), x) };
}
