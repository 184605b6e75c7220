//! The register tile in NEON: eight rows by four tokens at a time, with their sums in eight registers.
//!
//! Two [instructions](Instruction) multiply bytes, and take both sides signed.

mod columns;
mod floats;
mod sdot;
mod smmla;

use std::arch::aarch64::*;

use columns::NeonRows;
pub(super) use floats::floats;
pub(super) use sdot::Sdot;
pub(super) use smmla::Smmla;

use super::column::for_each_block;
use super::numbers::{PanelBlock, TileBlock};
use super::{Functions, Product, Quants, ROWS, RegisterTile};
use crate::activations::Q8_LEN;
use crate::block::QuantBlock;
use crate::neon::load_f32;

/// Tokens at a time.
const AT_ONCE: usize = 4;

/// What each of four tokens has of a block.
type Activations<'a> = [&'a [i8; Q8_LEN]; AT_ONCE];

/// An instruction that multiplies bytes, and how its sums for eight rows and four tokens lie in eight registers. A
/// value proves that this CPU has it. Its [`RegisterTile`] is [`multiply`], compiled for it.
pub(super) trait Instruction: RegisterTile + Copy {
    /// Makes signed bytes of quants, in the order that `dots` takes them.
    fn arrange(quants: &mut [[u8; 4 * ROWS]; Q8_LEN / 4]);

    /// The sums of the products from column `FROM` to `TO`.
    fn dots<const FROM: usize, const TO: usize>(
        self,
        quants: &[[u8; 4 * ROWS]; Q8_LEN / 4],
        x: Activations<'_>,
        eight: usize,
    ) -> [int32x4_t; 8];

    /// For each sum what its row has.
    fn of_rows(x: &[f32; 8]) -> [float32x4_t; 8];

    /// For each sum what its token has.
    fn of_tokens(x: &[f32; AT_ONCE]) -> [float32x4_t; 8];

    /// Writes the sums of the `eight`-th eight rows.
    fn store(sums: [float32x4_t; 8], out: &mut [[f32; ROWS]; AT_ONCE], eight: usize);
}

/// Four numbers, and another four.
#[inline]
#[target_feature(enable = "neon")]
fn halves(x: &[f32; 8]) -> [float32x4_t; 2] {
    let halves = x.as_chunks::<4>().0;
    [load_f32(&halves[0]), load_f32(&halves[1])]
}

/// The functions of a format on a CPU that has the instruction.
///
/// # Safety
/// This CPU has it.
pub(super) unsafe fn quants<B: QuantBlock, I: Instruction>() -> Functions<Quants> {
    Functions {
        expand: expand::<B, I>,
        // SAFETY: the caller's.
        multiply: unsafe { I::multiply_of::<B>() },
    }
}

fn expand<B: QuantBlock, I: Instruction>(rows: &[u8], row_bytes: usize, panel: &mut [PanelBlock]) {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    for_each_block(rows, row_bytes, panel, per_block, |blocks, panel| {
        B::expand(&NeonRows(blocks), panel);
        panel.iter_mut().for_each(|panel| I::arrange(&mut panel.quants));
    });
}

#[inline(always)]
fn multiply<I: Instruction, const HALVES: bool, const MINS: bool>(
    instruction: I,
    panel: &[PanelBlock],
    tile: &[TileBlock],
    n: usize,
    out: &mut Product,
) {
    for (four, out) in out.as_chunks_mut::<AT_ONCE>().0.iter_mut().enumerate().take(n.div_ceil(AT_ONCE)) {
        for eight in 0..2 {
            // SAFETY: NEON is in the baseline of the architecture.
            let mut sums = [unsafe { vdupq_n_f32(0.0) }; 8];
            for (panel, tile) in panel.iter().zip(tile) {
                let part = Part { instruction, panel, tile, four, eight };
                if HALVES {
                    part.add::<0, 4, MINS>(&mut sums);
                    part.add::<4, 8, MINS>(&mut sums);
                } else {
                    part.add::<0, 8, MINS>(&mut sums);
                }
            }
            I::store(sums, out, eight);
        }
    }
}

/// A block of the `eight`-th eight rows and the `four`-th four tokens.
struct Part<'a, I> {
    instruction: I,
    panel: &'a PanelBlock,
    tile: &'a TileBlock,
    four: usize,
    eight: usize,
}

impl<I: Instruction> Part<'_, I> {
    /// Adds the products from column `FROM` to `TO`: of a half, or of all.
    #[inline(always)]
    fn add<const FROM: usize, const TO: usize, const MINS: bool>(&self, sums: &mut [float32x4_t; 8]) {
        let (half, of_half) = const { if TO - FROM == 8 { (0, 2) } else { (FROM / 4, FROM / 4) } };
        let (panel, tile) = (self.panel, self.tile);
        let [a, b, c, d] = &tile.0.as_chunks::<AT_ONCE>().0[self.four];
        let x = [&a.quants, &b.quants, &c.quants, &d.quants];
        let dots = self.instruction.dots::<FROM, TO>(&panel.quants, x, self.eight);
        let of_rows = self.of_rows(&panel.scales[half]);
        let of_tokens = I::of_tokens(&[a.scale, b.scale, c.scale, d.scale]);
        for i in 0..8 {
            // SAFETY: NEON is in the baseline of the architecture.
            sums[i] = unsafe {
                let scale = vmulq_f32(of_rows[i], of_tokens[i]);
                vfmaq_f32(sums[i], vcvtq_f32_s32(dots[i]), scale)
            };
        }
        if MINS {
            let of_rows = self.of_rows(&panel.mins[half]);
            let of_tokens =
                I::of_tokens(&[a.sums[of_half], b.sums[of_half], c.sums[of_half], d.sums[of_half]]);
            for i in 0..8 {
                // SAFETY: as above.
                sums[i] = unsafe { vfmsq_f32(sums[i], of_rows[i], of_tokens[i]) };
            }
        }
    }

    #[inline(always)]
    fn of_rows(&self, x: &[f32; ROWS]) -> [float32x4_t; 8] {
        I::of_rows(&x.as_chunks::<8>().0[self.eight])
    }
}
