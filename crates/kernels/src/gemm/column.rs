//! Expanding 16 rows at once, column by column.
//!
//! A *column* is four bytes of each row, side by side. Packed quants are moved from rows to columns before
//! they are unpacked, while there is little of them; and unpacking is the same for every byte. So a format
//! says once, in operations on columns, what each instruction set then does in its registers.

use std::ops::{Add, BitAnd, BitOr, BitXor, Mul, Shl, Shr};

use super::{PanelBlock, ROWS};
use crate::activations::Q8_LEN;
use crate::block::{Bytes, QuantBlock, cast};

/// Four bytes, or a number of 32 bits, of each of the 16 rows of a panel.
pub(crate) trait Column:
    Copy
    + Add<u32, Output = Self>
    + BitAnd<u32, Output = Self>
    + BitOr<Output = Self>
    + BitXor<u32, Output = Self>
    + Mul<u32, Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    /// A float of each row.
    type Floats: Copy + Mul<Output = Self::Floats>;

    /// What each byte, below 16, stands for.
    fn levels(self, levels: &[i8; 16]) -> Self;

    /// The signed byte `i`, counted from the lowest, as a float.
    fn signed_byte(self, i: usize) -> Self::Floats;

    /// The 32 bits, a float.
    fn float(self) -> Self::Floats;

    /// The lower 16 bits, a number in half precision.
    fn half(self) -> Self::Floats;

    fn store(self, out: &mut [u8; 4 * ROWS]);

    fn store_floats(x: Self::Floats, out: &mut [f32; ROWS]);
}

/// One block of each row of a panel.
pub(crate) trait Rows<B> {
    type Column: Column;

    /// The block of row `r`.
    fn block(&self, r: usize) -> &B;

    /// The 4 bytes from `offset` on of each block.
    fn column(&self, offset: usize) -> Self::Column;

    /// The 16 bytes from `offset` on.
    fn columns(&self, offset: usize) -> [Self::Column; 4];

    /// The 32 bytes from `offset` on.
    #[inline(always)]
    fn run(&self, offset: usize) -> [Self::Column; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.columns(offset), self.columns(offset + 16));
        [a, b, c, d, e, f, g, h]
    }
}

impl PanelBlock {
    /// Stores quants, less `offset`; the bytes of `quants` must be below 128 + `offset`.
    #[inline(always)]
    pub(crate) fn set_quants<C: Column>(&mut self, quants: [C; Q8_LEN / 4], offset: u8) {
        for (stored, column) in self.quants.iter_mut().zip(quants) {
            (column + four(128 - offset)).store(stored);
        }
    }

    /// Stores signed quants.
    #[inline(always)]
    pub(crate) fn set_signed<C: Column>(&mut self, quants: [C; Q8_LEN / 4]) {
        for (stored, column) in self.quants.iter_mut().zip(quants) {
            (column ^ four(128)).store(stored);
        }
    }

    /// Stores the levels that quants of 4 bits stand for.
    #[inline(always)]
    pub(crate) fn set_levels<C: Column>(&mut self, codes: [C; Q8_LEN / 4], levels: &[i8; 16]) {
        for (stored, column) in self.quants.iter_mut().zip(codes) {
            (column.levels(levels) ^ four(128)).store(stored);
        }
    }

    /// Stores a scale for all 32 weights of each row.
    #[inline(always)]
    pub(crate) fn set_scales<C: Column>(&mut self, scales: C::Floats) {
        C::store_floats(scales, &mut self.scales[0]);
    }

    /// Stores a minimum for all 32 weights of each row.
    #[inline(always)]
    pub(crate) fn set_mins<C: Column>(&mut self, mins: C::Floats) {
        C::store_floats(mins, &mut self.mins[0]);
    }

    /// Stores the minima of one half of the weights.
    #[inline(always)]
    pub(crate) fn set_half_mins<C: Column>(&mut self, half: usize, mins: C::Floats) {
        C::store_floats(mins, &mut self.mins[half]);
    }

    /// Stores the scales of one half of the weights.
    #[inline(always)]
    pub(crate) fn set_half_scales<C: Column>(&mut self, half: usize, scales: C::Floats) {
        C::store_floats(scales, &mut self.scales[half]);
    }
}

/// The same byte four times.
pub(crate) const fn four(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

/// Columns of 16 bytes as columns of 32 numbers of 4 bits: the low nibbles, then the high ones.
#[inline(always)]
pub(crate) fn nibbles<C: Column>([a, b, c, d]: [C; 4]) -> [C; 8] {
    let high = four(15);
    [a & high, b & high, c & high, d & high, a >> 4 & high, b >> 4 & high, c >> 4 & high, d >> 4 & high]
}

/// As [`nibbles`], with a fifth bit for each from `high`: the bits of the 32 weights, lowest first.
#[inline(always)]
pub(crate) fn five_bits<C: Column>(packed: [C; 4], high: C) -> [C; 8] {
    let mut quants = nibbles(packed);
    for (j, quants) in quants.iter_mut().enumerate() {
        // The product holds the four bits four times, each time 7 places further on.
        let spread = (high >> (4 * j as u32) & 15) * 0x0204_0810;
        *quants = *quants | spread & four(16);
    }
    quants
}

/// Expands row by row, whatever the format.
#[inline(always)]
pub(crate) fn expand_each<B: QuantBlock>(rows: &impl Rows<B>, panel: &mut [PanelBlock]) {
    for r in 0..ROWS {
        for (i, panel) in panel.iter_mut().enumerate() {
            let unpacked = rows.block(r).unpack(i);
            for (four, quants) in unpacked.quants.as_chunks::<4>().0.iter().zip(&mut panel.quants) {
                quants.as_chunks_mut::<4>().0[r] = four.map(|q| q.cast_unsigned() ^ 128);
            }
            for half in 0..if B::HALVES { 2 } else { 1 } {
                panel.scales[half][r] = unpacked.scales[half];
                panel.mins[half][r] = unpacked.mins[half];
            }
        }
    }
}

/// Calls `expand` for as many blocks of each row as `panel` is for, with that block of 16 rows and its `per_block` blocks of the
/// panel. Rows begin `row_bytes` apart; the last may end with the last of those blocks. Where there are fewer rows, the last
/// stands for those that are missing.
#[inline(always)]
pub(super) fn for_each_block<B: Bytes, P>(
    rows: &[u8],
    row_bytes: usize,
    panel: &mut [P],
    per_block: usize,
    mut expand: impl FnMut([&B; ROWS], &mut [P]),
) {
    assert!(panel.len().is_multiple_of(per_block), "a panel of whole blocks");
    let n_bytes = panel.len() / per_block * size_of::<B>();
    let last = rows.len().div_ceil(row_bytes) - 1;
    let mut starts: [&[B]; ROWS] = [&[]; ROWS];
    for (r, start) in starts.iter_mut().enumerate() {
        *start = cast(&rows[r.min(last) * row_bytes..][..n_bytes]);
    }
    for (i, panel) in panel.chunks_exact_mut(per_block).enumerate() {
        let mut blocks = [&starts[0][i]; ROWS];
        for (block, start) in blocks.iter_mut().zip(&starts) {
            // SAFETY: of all rows there are as many blocks as the panel is for.
            *block = unsafe { start.get_unchecked(i) };
        }
        expand(blocks, panel);
    }
}

/// The `N` bytes from `offset` on of a block.
///
/// # Panics
/// If the block ends before.
#[inline(always)]
pub(super) fn array_at<B: Bytes, const N: usize>(block: &B, offset: usize) -> &[u8; N] {
    assert!(offset <= size_of::<B>() && N <= size_of::<B>() - offset, "the bytes are in the block");
    // SAFETY: inside the block, by the assertion, whose bytes are all initialised: it has no padding.
    unsafe { &*std::ptr::from_ref(block).cast::<u8>().add(offset).cast() }
}
