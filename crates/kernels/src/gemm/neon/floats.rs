//! The register tile of floats in NEON: 16 rows by four tokens, with their sums in 16 registers.

use std::arch::aarch64::*;

use super::super::column::for_each_block;
use super::super::numbers::{FloatPanel, FloatTile};
use super::super::{Floats, Functions, Group, Product, one_by_one};
use super::AT_ONCE;
use super::columns::NeonRows;
use crate::block::FloatBlock;
use crate::neon::{each, load_f32, store_f32};

pub(in crate::gemm) fn floats<B: FloatBlock>() -> Functions<Floats> {
    // SAFETY: NEON is in the baseline of the architecture.
    Functions {
        expand: expand::<B>,
        multiply: |group, out| {
            let Group { panels, tile, n_tokens: n } = group;
            // SAFETY: likewise.
            one_by_one(panels, tile, out, |panel, tile, out| unsafe { multiply(panel, tile, n, out) });
        },
    }
}

fn expand<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [FloatPanel]) {
    for_each_block(rows, row_bytes, panel, 1, |blocks, panel| {
        B::expand(&NeonRows(blocks), &mut panel[0]);
    });
}

#[target_feature(enable = "neon")]
fn multiply(panel: &[FloatPanel], tile: &[FloatTile], n: usize, out: &mut Product) {
    for (four, out) in out.as_chunks_mut::<AT_ONCE>().0.iter_mut().enumerate().take(n.div_ceil(AT_ONCE)) {
        let mut sums = [[vdupq_n_f32(0.0); 4]; AT_ONCE];
        for (panel, tile) in panel.iter().zip(tile) {
            let [a, b, c, d] = &tile.0.as_chunks::<AT_ONCE>().0[four];
            for (i, weights) in panel.0.as_chunks::<4>().0.iter().enumerate() {
                let x = each([a, b, c, d], |x| load_f32(&x.as_chunks::<4>().0[i]));
                add::<0>(&mut sums, &weights[0], x);
                add::<1>(&mut sums, &weights[1], x);
                add::<2>(&mut sums, &weights[2], x);
                add::<3>(&mut sums, &weights[3], x);
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            for (out, sum) in out.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                store_f32(out, sum);
            }
        }
    }
}

/// Adds the products of a weight of each row with the `LANE`-th activation of each token.
#[inline]
#[target_feature(enable = "neon")]
fn add<const LANE: i32>(
    sums: &mut [[float32x4_t; 4]; AT_ONCE],
    weights: &[f32; 16],
    x: [float32x4_t; AT_ONCE],
) {
    let weights = weights.as_chunks::<4>().0;
    let weights = each([0, 1, 2, 3], |i| load_f32(&weights[i]));
    for (sums, x) in sums.iter_mut().zip(x) {
        for (sum, weights) in sums.iter_mut().zip(weights) {
            *sum = vfmaq_laneq_f32::<LANE>(*sum, weights, x);
        }
    }
}
