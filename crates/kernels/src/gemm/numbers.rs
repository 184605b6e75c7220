//! What panels and tiles hold: 8-bit quants for the quantized formats, floats for the others.

use std::fmt::Debug;

use super::layout::Layout;
use super::work::{Portion, Space};
use super::{Functions, Gemm, Multiply, ROWS, TOKENS};
use crate::activations::{Q8_LEN, Q8Block};
use crate::isa::Isa;
use crate::matmul::{Forms, InputRows};
#[cfg(target_arch = "x86_64")]
use crate::tiles::Tiles;

/// What the buffers of panels and tiles are made of, whatever numbers these hold: a line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

impl Line {
    pub(crate) const ZERO: Self = Line([0; 64]);
}

/// A part of a panel or a tile.
///
/// # Safety
/// The type must be of alignment 64 or less, without padding, and valid for every bit pattern: [`cast_mut`]
/// makes it from lines.
pub(crate) unsafe trait Block: Copy + Sync + 'static {
    /// Lines that one takes.
    const LINES: usize = const {
        assert!(
            size_of::<Self>().is_multiple_of(size_of::<Line>()) && align_of::<Self>() <= align_of::<Line>()
        );
        size_of::<Self>() / size_of::<Line>()
    };
}

/// The blocks that lie in `lines`.
pub(super) fn cast_mut<B: Block>(lines: &mut [Line]) -> &mut [B] {
    // SAFETY: a `Block` is `LINES` lines long, no more aligned, without padding, and valid for every bit
    // pattern; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() / B::LINES) }
}

/// The kinds of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Quants,
    Floats,
    #[cfg(target_arch = "x86_64")]
    Bf16,
    #[cfg(target_arch = "x86_64")]
    Split,
}

/// One of the kinds of numbers.
pub(crate) trait Numbers: Copy + Sized + 'static {
    /// 32 weights of each of [`ROWS`] rows.
    type Panel: Block;
    /// 32 activations of each of [`TOKENS`] tokens.
    type Tile: Block + Send;

    /// How panels are multiplied, where formats of this kind differ in that.
    type Multiply: Copy + Debug;

    /// Tokens whose tiles are made together: so many meet a panel before it is expanded again.
    const MAX_TOKENS: usize;
    /// What a tile is made from.
    const FORMS: Forms;
    /// Which it is.
    const KIND: Kind;

    /// The functions of a format that has panels of this kind.
    fn functions(gemm: &Gemm) -> Option<&Functions<Self>>;

    /// Sets one token of a tile, from the first row of `input`.
    fn set(tile: &mut [Self::Tile], token: usize, input: &InputRows);

    /// How the panels and tiles of some tokens lie and meet.
    fn layout(n_tokens: usize, n_blocks: usize) -> Layout;

    /// What a worker does: multiplies portions as long as there are some.
    fn work<'a>(isa: Isa, portions: impl Iterator<Item = Portion<'a, Self>>, space: Space<'_, Self>);
}

/// Sums of products that rest in memory: of two panels and two tiles, a row for each token.
pub(crate) type Sums = [[f32; 2 * ROWS]; 2 * TOKENS];

/// Quants of 8 bits with scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quants;

/// Floats of 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floats;

/// 32 weights of each of [`ROWS`] rows.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct PanelBlock {
    /// `quants[j][4r + i]` is weight `4j + i` of row `r`, plus 128. So formats expand them; the NEON tiles then
    /// take the 128 off, and have an order of their own.
    pub(super) quants: [[u8; 4 * ROWS]; Q8_LEN / 4],
    /// Scales of the first and of the second 16 weights of each row.
    pub(crate) scales: [[f32; ROWS]; 2],
    /// Minima of the same.
    pub(super) mins: [[f32; ROWS]; 2],
}

/// 32 activations of each of [`TOKENS`] tokens.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct TileBlock(pub(super) [TileRow; TOKENS]);

/// 32 activations of a token, and what a product needs of them: one line of the cache, written at once.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct TileRow {
    pub(super) quants: [i8; Q8_LEN],
    /// −128 times the sum of the first 16 quants, of the second 16, of all.
    pub(super) offsets: [i32; 3],
    /// The scale times the same sums.
    pub(super) sums: [f32; 3],
    pub(super) scale: f32,
    rest: u32,
}

// SAFETY: an array of floats.
unsafe impl Block for Sums {}
// SAFETY: arrays of numbers whose sizes are multiples of the alignment, repr(C).
unsafe impl Block for PanelBlock {}
// SAFETY: likewise.
unsafe impl Block for TileBlock {}

/// 32 weights of each of [`ROWS`] rows, as floats: `0[i][r]` is weight `i` of row `r`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct FloatPanel(pub(crate) [[f32; ROWS]; Q8_LEN]);

/// 32 activations of each of [`TOKENS`] tokens, as floats.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct FloatTile(pub(super) [[f32; Q8_LEN]; TOKENS]);

// SAFETY: an array of floats, repr(C).
unsafe impl Block for FloatPanel {}
// SAFETY: likewise.
unsafe impl Block for FloatTile {}

impl Numbers for Quants {
    type Panel = PanelBlock;
    type Tile = TileBlock;
    type Multiply = Multiply<Self>;

    const MAX_TOKENS: usize = usize::MAX;
    const FORMS: Forms = Forms { blocks: true, groups: false };
    const KIND: Kind = Kind::Quants;
    fn functions(gemm: &Gemm) -> Option<&Functions<Self>> {
        if let Gemm::Quants(functions) = gemm { Some(functions) } else { None }
    }

    fn set(tile: &mut [TileBlock], token: usize, input: &InputRows) {
        tile.iter_mut().zip(&input.blocks).for_each(|(tile, x)| tile.0[token] = TileRow::new(x));
    }

    fn layout(n_tokens: usize, n_blocks: usize) -> Layout {
        Layout::whole::<Self>(n_tokens, n_blocks)
    }

    fn work<'a>(_: Isa, portions: impl Iterator<Item = Portion<'a, Self>>, mut space: Space<'_, Self>) {
        portions.for_each(|portion| portion.multiply(&mut space));
    }
}

impl Numbers for Floats {
    type Panel = FloatPanel;
    type Tile = FloatTile;
    type Multiply = Multiply<Self>;

    /// Floats take twice the room of quants and their sums. With so many tokens, expanding again for the next
    /// ones costs 3 % of the time, and the tiles of 512 tokens' quants have room for them.
    const MAX_TOKENS: usize = 240;
    const FORMS: Forms = Forms { blocks: false, groups: false };
    const KIND: Kind = Kind::Floats;
    fn functions(gemm: &Gemm) -> Option<&Functions<Self>> {
        if let Gemm::Floats(functions) = gemm { Some(functions) } else { None }
    }

    fn set(tile: &mut [FloatTile], token: usize, input: &InputRows) {
        for (tile, x) in tile.iter_mut().zip(input.floats.as_chunks::<Q8_LEN>().0) {
            tile.0[token] = *x;
        }
    }

    fn layout(n_tokens: usize, n_blocks: usize) -> Layout {
        Layout::whole::<Self>(n_tokens, n_blocks)
    }

    fn work<'a>(_: Isa, portions: impl Iterator<Item = Portion<'a, Self>>, mut space: Space<'_, Self>) {
        portions.for_each(|portion| portion.multiply(&mut space));
    }
}

/// bfloat16, which AMX multiplies in tiles.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16;

/// 32 weights of each of [`ROWS`] rows as bfloat16: `0[i][r]` are weights `2i` and `2i + 1` of row `r`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Bf16Panel(pub(super) [[[u16; 2]; ROWS]; Q8_LEN / 2]);

/// 32 activations of each of [`TOKENS`] tokens as bfloat16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Bf16Tile(pub(super) [[u16; Q8_LEN]; TOKENS]);

/// Numbers with more digits than bfloat16 has: each as two, of which the second is what the first lacks.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split;

/// 32 weights of each of [`ROWS`] rows: the first parts twice, then the second ones.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct SplitPanel(pub(super) [Bf16Panel; 3]);

/// What those are multiplied with, 32 activations of each of [`TOKENS`] tokens: the first parts, the second ones, and the first
/// again. The product of both second parts is left out: it is a sixty-thousandth of the whole.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct SplitTile(pub(super) [Bf16Tile; 3]);

// SAFETY: an array of numbers whose size is a multiple of the alignment, repr(C).
#[cfg(target_arch = "x86_64")]
unsafe impl Block for SplitPanel {}
// SAFETY: likewise.
#[cfg(target_arch = "x86_64")]
unsafe impl Block for SplitTile {}
// SAFETY: likewise.
#[cfg(target_arch = "x86_64")]
unsafe impl Block for Bf16Panel {}
// SAFETY: likewise.
#[cfg(target_arch = "x86_64")]
unsafe impl Block for Bf16Tile {}

#[cfg(target_arch = "x86_64")]
impl PanelBlock {
    pub(super) const ZERO: Self =
        PanelBlock { quants: [[0; 4 * ROWS]; Q8_LEN / 4], scales: [[0.0; ROWS]; 2], mins: [[0.0; ROWS]; 2] };
}

#[cfg(target_arch = "x86_64")]
impl FloatPanel {
    pub(super) const ZERO: Self = FloatPanel([[0.0; ROWS]; Q8_LEN]);
}

#[cfg(target_arch = "x86_64")]
impl Numbers for Bf16 {
    type Panel = Bf16Panel;
    type Tile = Bf16Tile;
    type Multiply = ();

    /// So many tokens' sums and a step's tiles fit the second-level cache. Expanding again for the next ones takes less than a
    /// fifth of the time.
    const MAX_TOKENS: usize = 512;
    const FORMS: Forms = Forms { blocks: false, groups: false };
    const KIND: Kind = Kind::Bf16;

    fn functions(gemm: &Gemm) -> Option<&Functions<Self>> {
        if let Gemm::Bf16(functions) = gemm { Some(functions) } else { None }
    }

    fn set(tile: &mut [Bf16Tile], token: usize, input: &InputRows) {
        super::amx::set(tile, token, &input.floats);
    }

    fn layout(n_tokens: usize, n_blocks: usize) -> Layout {
        // Whole blocks of every format that has rows of this length, of up to eight of these.
        Layout::in_steps::<Self>(n_tokens, n_blocks, 1 << n_blocks.trailing_zeros().min(3))
    }

    fn work<'a>(isa: Isa, portions: impl Iterator<Item = Portion<'a, Self>>, mut space: Space<'_, Self>) {
        let unit = Tiles::new(isa);
        portions.for_each(|portion| portion.multiply_in_steps(&unit, &mut space));
    }
}

#[cfg(target_arch = "x86_64")]
impl Numbers for Split {
    type Panel = SplitPanel;
    type Tile = SplitTile;
    type Multiply = ();

    /// Their tiles take no more room than those of 512 tokens' quants. Expanding again for the next ones takes little beside three
    /// products.
    const MAX_TOKENS: usize = 160;
    const FORMS: Forms = Forms { blocks: false, groups: false };
    const KIND: Kind = Kind::Split;

    fn functions(gemm: &Gemm) -> Option<&Functions<Self>> {
        if let Gemm::Split(functions) = gemm { Some(functions) } else { None }
    }

    fn set(tile: &mut [SplitTile], token: usize, input: &InputRows) {
        super::amx::set_split(tile, token, &input.floats);
    }

    fn layout(n_tokens: usize, n_blocks: usize) -> Layout {
        Layout::in_steps::<Self>(n_tokens, n_blocks, 1)
    }

    fn work<'a>(isa: Isa, portions: impl Iterator<Item = Portion<'a, Self>>, mut space: Space<'_, Self>) {
        let unit = Tiles::new(isa);
        portions.for_each(|portion| portion.multiply_in_steps(&unit, &mut space));
    }
}

impl TileRow {
    fn new(x: &Q8Block) -> Self {
        let sums = [i32::from(x.sums[0]), i32::from(x.sums[1]), x.sum()];
        TileRow {
            quants: x.quants,
            offsets: sums.map(|sum| -128 * sum),
            sums: sums.map(|sum| x.scale * sum as f32),
            scale: x.scale,
            rest: 0,
        }
    }
}
