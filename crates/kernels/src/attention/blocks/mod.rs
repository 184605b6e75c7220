//! Keys and values that are kept as blocks of 32 numbers with a scale.
//!
//! Keys meet queries as integers: a query is rounded to 8 bits, with a scale for each 32 numbers, and only the
//! sum of 32 products is a float. For that, the blocks of 32 positions lie interleaved in a *panel*: the scales
//! of all, then the first four bytes of each, then the next four. A lane of a register then has four numbers of
//! its own position, or eight of 4 bits, which one instruction multiplies with four of the query and adds up.
//!
//! Values are decoded on the way to a register, and so are what they would be had they been decoded before.

#[cfg(target_arch = "aarch64")]
mod neon;
mod product;
#[cfg(target_arch = "x86_64")]
mod x86;

use metallic_gguf::GgmlType;
use product::Integers;
pub(super) use product::products;

use super::POSITIONS;
use super::pages::GROUP;
use crate::activations::{Q8_LEN, Q8Block, quantize_q8};
use crate::isa::Isa;
use crate::registry::{self, Encode};

/// Numbers in a block.
pub(super) const LEN: usize = Q8_LEN;

/// Bytes of the longest block.
pub(super) const MAX_BYTES: usize = GgmlType::Q8_0.block_bytes();

/// Columns that 32 numbers of a query become: eight times four bytes, then what must be added to a sum of
/// products with unsigned numbers, an integer, and the scale.
pub(super) const QUERY_COLUMNS: usize = 10;

/// A format of blocks: a scale in half precision, then the numbers.
pub(super) trait Blocks {
    const TYPE: GgmlType;
    const BYTES: usize = Self::TYPE.block_bytes();
    /// What makes the numbers unsigned.
    const OFFSET: i32;

    /// Numbers `4 · i` to `4 · i + 3` of the positions from `first` on, as many as there are lanes.
    ///
    /// # Safety
    /// There is a panel at `panel`, and these are some of its positions.
    unsafe fn quad<R: Integers>(r: R, panel: *const u8, i: usize, first: usize) -> R::I;

    /// The numbers from `first` on, a multiple of as many as there are lanes.
    ///
    /// # Safety
    /// There are the numbers of a block at `from`, and `first` is one of them.
    unsafe fn floats<R: Integers>(r: R, from: *const u8, first: usize) -> R::V;

    /// Makes a block.
    fn encode(isa: Isa) -> Encode {
        match registry::ops(Self::TYPE, isa).encode {
            Some(encode) => encode,
            None => unreachable!("a format that can be made"),
        }
    }
}

/// Blocks of 8 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q8;

impl Blocks for Q8 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn quad<R: Integers>(r: R, panel: *const u8, i: usize, first: usize) -> R::I {
        // SAFETY: the panel has as many bytes from there on.
        unsafe { r.bytes(panel.add(dword_at(i, first))) }
    }

    #[inline(always)]
    unsafe fn floats<R: Integers>(r: R, from: *const u8, first: usize) -> R::V {
        // SAFETY: a register ends where the block does or before.
        unsafe { r.float_bytes(from.add(first)) }
    }
}

/// Blocks of 4 bits: each byte has a number of the first half, and above it one of the second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Q4;

impl Blocks for Q4 {
    const TYPE: GgmlType = GgmlType::Q4_0;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn quad<R: Integers>(r: R, panel: *const u8, i: usize, first: usize) -> R::I {
        // SAFETY: the panel has as many bytes from there on.
        unsafe { r.nibbles(panel.add(dword_at(i % 4, first)), i >= 4) }
    }

    #[inline(always)]
    unsafe fn floats<R: Integers>(r: R, from: *const u8, first: usize) -> R::V {
        // SAFETY: a register ends where a half of the block does or before.
        unsafe { r.float_nibbles(from.add(first % 16), first >= 16) }
    }
}

/// Where the scale of a position is in a panel.
#[inline(always)]
const fn scale_at(position: usize) -> usize {
    2 * position
}

/// Where four bytes of a position are in a panel.
#[inline(always)]
const fn dword_at(i: usize, position: usize) -> usize {
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
fn pack_query<B: Blocks>(isa: Isa, x: &mut [f32; POSITIONS]) {
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
