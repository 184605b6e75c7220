//! Tiles of floats: a multiplication and addition for each weight and token.

use std::arch::x86_64::*;

use super::super::column::for_each_block;
use super::super::numbers::{FloatPanel, FloatTile};
use super::super::{Floats, Functions, Group, ROWS};
use super::columns::Avx512Rows;
use super::{Kernel, Part, load_floats, multiply};
use crate::activations::Q8_LEN;
use crate::block::FloatBlock;

/// Tokens at a time: with two panels their sums take 16 registers.
const AT_ONCE: usize = 8;

pub(in crate::gemm) fn floats<B: FloatBlock>() -> Functions<Floats> {
    Functions {
        // SAFETY: only `Gemm::of_floats` asks, whose `Isa::Avx512` proves what this CPU has.
        expand: |rows, row_bytes, panel| unsafe { expand::<B>(rows, row_bytes, panel) },
        multiply: |group, out| {
            let Group { panels, tile, n_tokens: n } = group;
            // SAFETY: likewise.
            unsafe { multiply::<Blocks, AT_ONCE>(panels, tile, n, out) };
        },
    }
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn expand<B: FloatBlock>(rows: &[u8], row_bytes: usize, panel: &mut [FloatPanel]) {
    for_each_block(rows, row_bytes, panel, 1, |blocks, panel| expand_block::<B>(blocks, &mut panel[0]));
}

/// Expands 32 numbers of each row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(in crate::gemm) fn expand_block<B: FloatBlock>(blocks: [&B; ROWS], panel: &mut FloatPanel) {
    B::expand(&Avx512Rows::new(blocks), panel);
}

struct Blocks;

impl Kernel for Blocks {
    type Panel = FloatPanel;
    type Tile = FloatTile;

    const STEP_BLOCKS: usize = 2;
    const BLOCKS_AHEAD: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn add<const P: usize, const T: usize>(
        part: &Part<'_, Self, P>,
        mut sums: [[__m512; P]; T],
    ) -> [[__m512; P]; T] {
        for i in 0..part.tile.len() {
            let (panels, tile) = part.block(i);
            let x: &[_; T] = tile.0[part.first..].first_chunk().expect("a tile has so many tokens");
            for i in 0..Q8_LEN {
                let mut w = [_mm512_setzero_ps(); P];
                for p in 0..P {
                    w[p] = load_floats(&panels[p].0[i]);
                }
                for t in 0..T {
                    let x = _mm512_set1_ps(x[t][i]);
                    for p in 0..P {
                        sums[t][p] = _mm512_fmadd_ps(w[p], x, sums[t][p]);
                    }
                }
            }
        }
        sums
    }
}
