//! Keys and values that are kept as blocks of 32 numbers with a scale.
//!
//! Keys meet queries as integers: a query is rounded to 8 bits, with a scale for each 32 numbers, and only the
//! sum of 32 products is a float. For that, the blocks of 32 positions lie interleaved in a *panel*: the scales
//! of all, then the first four bytes of each, then the next four. A lane of a register then has four numbers of
//! its own position, or eight of 4 bits, which one instruction multiplies with four of the query and adds up.
//!
//! Values are decoded on the way to a register, and so are what they would be had they been decoded before.

use metallic_gguf::GgmlType;

use super::pages::GROUP;
#[cfg(target_arch = "x86_64")]
use super::product::Products;
use super::product::{Format, Plain, Registers, Scores, Weights};
use super::{POSITIONS, ROWS};
use crate::activations::{Q8_LEN, Q8Block, quantize_q8};
use crate::isa::Isa;
use crate::quants::half;
use crate::registry::{self, Encode};

/// Numbers in a block.
pub(super) const LEN: usize = Q8_LEN;

/// Bytes of the longest block.
pub(super) const MAX_BYTES: usize = GgmlType::Q8_0.block_bytes();

/// Columns that 32 numbers of a query become: eight times four bytes, then what must be added to a sum of
/// products with unsigned numbers, an integer, and the scale.
pub(super) const QUERY_COLUMNS: usize = 10;

/// Blocks of 8 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q8;

/// Blocks of 4 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4;

/// A format of blocks: a scale in half precision, then the numbers.
pub(super) trait Blocks: Format<Plain> + Copy + 'static {
    const TYPE: GgmlType;
    const BYTES: usize = Self::TYPE.block_bytes();
    /// What makes the numbers unsigned.
    const OFFSET: i32;

    /// Number `i` of a block; `dword` finds its bytes, four at a time.
    fn number<'a>(dword: impl Fn(usize) -> &'a [u8], i: usize) -> i8;

    /// The products on x86 but for [`Isa::Scalar`].
    #[cfg(target_arch = "x86_64")]
    fn products(isa: Isa) -> Products;

    /// Makes a block.
    fn encode(isa: Isa) -> Encode {
        match registry::ops(Self::TYPE, isa).encode {
            Some(encode) => encode,
            None => unreachable!("a format that can be made"),
        }
    }
}

impl Blocks for Q8 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const OFFSET: i32 = 128;

    #[inline(always)]
    fn number<'a>(dword: impl Fn(usize) -> &'a [u8], i: usize) -> i8 {
        dword(i / 4)[i % 4].cast_signed()
    }

    #[cfg(target_arch = "x86_64")]
    fn products(isa: Isa) -> Products {
        super::blocks_x86::products::<Q8>(isa)
    }
}

impl Blocks for Q4 {
    const TYPE: GgmlType = GgmlType::Q4_0;
    const OFFSET: i32 = 8;

    #[inline(always)]
    fn number<'a>(dword: impl Fn(usize) -> &'a [u8], i: usize) -> i8 {
        let byte = dword(i % 16 / 4)[i % 4];
        (byte >> (i / 16 * 4) & 15).cast_signed() - 8
    }

    #[cfg(target_arch = "x86_64")]
    fn products(isa: Isa) -> Products {
        super::blocks_x86::products::<Q4>(isa)
    }
}

/// Where the scale of a position is in a panel.
#[inline(always)]
const fn scale_at(position: usize) -> usize {
    2 * position
}

/// Where four bytes of a position are in a panel.
#[inline(always)]
pub(super) const fn dword_at(i: usize, position: usize) -> usize {
    2 * GROUP + (i * GROUP + position) * 4
}

/// Up to 32 numbers, and zeros.
pub(super) fn whole(x: &[f32]) -> [f32; LEN] {
    let mut whole = [0.0; LEN];
    whole[..x.len()].copy_from_slice(x);
    whole
}

/// Writes a block to its places in a panel.
pub(super) fn put(block: &[u8], position: usize, panel: &mut [u8]) {
    let (scale, dwords) = block.split_at(2);
    panel[scale_at(position)..][..2].copy_from_slice(scale);
    for (i, dword) in dwords.as_chunks::<4>().0.iter().enumerate() {
        panel[dword_at(i, position)..][..4].copy_from_slice(dword);
    }
}

/// Makes the columns of 128 numbers of a query.
pub(super) fn pack_query<B: Blocks>(isa: Isa, x: &mut [f32; POSITIONS]) {
    let mut blocks = [Q8Block::ZERO; POSITIONS / LEN];
    quantize_q8(isa, x, &mut blocks);
    for (block, columns) in blocks.iter().zip(x.chunks_exact_mut(QUERY_COLUMNS)) {
        let (quads, rest) = columns.split_at_mut(LEN / 4);
        for (column, quad) in quads.iter_mut().zip(block.quants.as_chunks::<4>().0) {
            *column = f32::from_ne_bytes(quad.map(i8::cast_unsigned));
        }
        rest.copy_from_slice(&[f32::from_bits((-B::OFFSET * block.sum()).cast_unsigned()), block.scale]);
    }
}

/// The scores of keys that are blocks: the twin of the others.
pub(super) fn scores<B: Blocks>(scores: Scores<'_>, weights: &mut Weights) {
    let Scores { queries, n_rows, groups, first, .. } = scores;
    let blocks = queries.as_chunks::<QUERY_COLUMNS>().0;
    for (g, group) in groups.chunks_exact(blocks.len() * GROUP * B::BYTES).enumerate() {
        for (row, weights) in weights.iter_mut().enumerate().take(n_rows) {
            let scores = &mut weights[(first + g) * GROUP..][..GROUP];
            scores.fill(0.0);
            for (columns, panel) in blocks.iter().zip(group.chunks_exact(GROUP * B::BYTES)) {
                add_panel::<B>(columns, row, panel, scores);
            }
        }
    }
}

#[inline(always)]
fn add_panel<B: Blocks>(
    columns: &[[f32; ROWS]; QUERY_COLUMNS],
    row: usize,
    panel: &[u8],
    scores: &mut [f32],
) {
    let mut sums = [0i32; GROUP];
    for i in 0..LEN {
        let q = i32::from(columns[i / 4][row].to_ne_bytes()[i % 4].cast_signed());
        for (position, sum) in sums.iter_mut().enumerate() {
            let k = B::number(|dword| &panel[dword_at(dword, position)..][..4], i);
            *sum += i32::from(k) * q;
        }
    }
    let scales = panel.as_chunks::<2>().0;
    for ((score, sum), scale) in scores.iter_mut().zip(sums).zip(scales) {
        *score += sum as f32 * half(*scale) * columns[QUERY_COLUMNS - 1][row];
    }
}

/// `impl Format` for blocks on some registers: a number of a row is its scale times what `$numbers`, a function
/// of a pointer to the block's numbers and of a column in it, reads.
macro_rules! format_of_blocks {
    ($blocks:ty, $registers:ty, $scale:path, $numbers:path) => {
        impl Format<$registers> for $blocks {
            const NUMBERS: usize = 1;
            const BYTES_OF_32: usize = <$blocks as Blocks>::BYTES;

            #[inline(always)]
            fn row_bytes(n: usize) -> usize {
                n.div_ceil(LEN) * <$blocks as Blocks>::BYTES
            }

            #[inline(always)]
            unsafe fn load(
                r: $registers,
                row: *const u8,
                column: usize,
                _lanes: <$registers as Registers>::Lanes,
            ) -> <$registers as Registers>::V {
                let block = row.wrapping_add(column / LEN * <$blocks as Blocks>::BYTES);
                // SAFETY: the block is there and whole, for its first number is one of the row's; a register
                // begins at a multiple of its length, and so ends where the block does or before.
                unsafe { r.mul($scale(block), $numbers(block.add(2), column % LEN)) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use format_of_blocks;

/// # Safety
/// There are two bytes at `from`.
#[inline(always)]
unsafe fn scale(from: *const u8) -> [f32; 8] {
    // SAFETY: as promised.
    [half(unsafe { from.cast::<[u8; 2]>().read() }); 8]
}

/// # Safety
/// There are the numbers of a block at `from`, and `first` is 0, 8, 16 or 24.
#[inline(always)]
unsafe fn numbers<B: Blocks>(from: *const u8, first: usize) -> [f32; 8] {
    // SAFETY: as promised.
    let numbers = unsafe { std::slice::from_raw_parts(from, B::BYTES - 2) };
    let mut out = [0.0; 8];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f32::from(B::number(|dword| &numbers[4 * dword..][..4], first + i));
    }
    out
}

format_of_blocks!(Q8, Plain, scale, numbers::<Q8>);
format_of_blocks!(Q4, Plain, scale, numbers::<Q4>);
