//! The products of queries with keys that are blocks, and of weights with values that are, written once over the
//! registers of each instruction set.

use std::marker::PhantomData;

use half::f16;

use super::super::ROWS;
use super::super::pages::GROUP;
use super::super::product::{
    Format, Plain, Products, Registers, Scores, Weights, for_each_row, prefetch, weighted, with_rows,
};
#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Blocks, LEN, QUERY_COLUMNS, pack_query};
use crate::isa::Isa;
use crate::quants::half;

/// The products on one instruction set, with keys and values that are blocks.
pub(in crate::attention) fn products<B: Blocks>(isa: Isa) -> Products {
    // What does not depend on the blocks is that of floats.
    let of_floats = Products::of::<f32>(isa);
    match isa {
        Isa::Scalar => Products {
            pack_query: |x| pack_query::<B>(Isa::Scalar, x),
            scores: |of, out| scores::<_, B>(Plain, of, out),
            values: |of, sums| weighted::<_, RowOf<B>>(Plain, of, sums),
            ..of_floats
        },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonI8mm => neon::products::<B>(of_floats),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::avx2::<B>(of_floats),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => x86::avx512::<B>(of_floats),
    }
}

/// Registers of integers, with a lane for each that a register of floats has: a sum in it, or four small numbers.
pub(in crate::attention) trait Integers: Registers {
    type I: Copy;

    /// Sums to begin with: 0, or the column of a query that is added to sums of unsigned products.
    fn begin(self, offset: f32) -> Self::I;
    /// Adds the products of four numbers of each position with four of a query.
    fn dot(self, sums: Self::I, keys: Self::I, query: f32) -> Self::I;
    /// Sums as floats.
    fn to_float(self, sums: Self::I) -> Self::V;

    /// Four numbers of 8 bits to a lane, for [`dot`](Self::dot): each 128 more where that takes unsigned ones.
    ///
    /// # Safety
    /// There are as many bytes at `from`, at any alignment.
    unsafe fn bytes(self, from: *const u8) -> Self::I;
    /// The same of 4 bits, the upper or the lower ones of each byte, less 8: or as they are, where it takes unsigned
    /// ones.
    ///
    /// # Safety
    /// As of [`bytes`](Self::bytes).
    unsafe fn nibbles(self, from: *const u8, upper: bool) -> Self::I;

    /// A number in half precision in all lanes.
    ///
    /// # Safety
    /// There are two bytes at `from`, at any alignment.
    unsafe fn half(self, from: *const u8) -> Self::V;
    /// Numbers of 8 bits.
    ///
    /// # Safety
    /// There is a byte for each lane at `from`.
    unsafe fn float_bytes(self, from: *const u8) -> Self::V;
    /// The same of 4 bits, the upper or the lower ones of each byte, less 8.
    ///
    /// # Safety
    /// As of [`float_bytes`](Self::float_bytes).
    unsafe fn float_nibbles(self, from: *const u8, upper: bool) -> Self::V;
}

/// A row of blocks. Its numbers are decoded as they are read.
pub(super) struct RowOf<B>(PhantomData<B>);

impl<R: Integers, B: Blocks> Format<R> for RowOf<B> {
    const NUMBERS: usize = 1;
    const BYTES_OF_32: usize = B::BYTES;

    #[inline(always)]
    fn row_bytes(n: usize) -> usize {
        n.div_ceil(LEN) * B::BYTES
    }

    #[inline(always)]
    unsafe fn load(r: R, row: *const u8, column: usize, _n: usize) -> R::V {
        let block = row.wrapping_add(column / LEN * B::BYTES);
        // SAFETY: the block is there and whole, for its first number is one of the row's.
        unsafe { r.mul(r.half(block), B::floats(r, block.add(2), column % LEN)) }
    }
}

#[inline(always)]
pub(super) fn scores<R: Integers, B: Blocks>(r: R, scores: Scores<'_>, weights: &mut Weights) {
    let Scores { queries, n_rows, groups, first, ahead } = scores;
    let queries = queries.as_chunks::<QUERY_COLUMNS>().0;
    for (g, group) in groups.chunks_exact(queries.len() * GROUP * B::BYTES).enumerate() {
        for row in (0..n_rows).step_by(R::ROWS) {
            let n = R::ROWS.min(n_rows - row);
            let position = (first + g) * GROUP;
            with_rows!(R, n, scores_of_group::<R, B>(r, queries, row, n, group, position, ahead, weights));
        }
    }
}

/// Scores of `n` rows from `first` on, `n <= N`, for one group.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices, and which part of one")]
fn scores_of_group<R: Integers, B: Blocks, const N: usize>(
    r: R,
    queries: &[[[f32; ROWS]; QUERY_COLUMNS]],
    first: usize,
    n: usize,
    group: &[u8],
    position: usize,
    ahead: usize,
    weights: &mut Weights,
) {
    assert!(first + N <= ROWS);
    let rows = &mut weights[first..first + n];
    for at in (0..GROUP).step_by(R::LANES) {
        let mut sums = [r.splat(0.0); ROWS];
        for (columns, panel) in queries.iter().zip(group.chunks_exact(GROUP * B::BYTES)) {
            let panel = panel.as_ptr();
            if N < R::ROWS {
                // Each register of positions has its share of the panel fetched.
                prefetch(r, panel.wrapping_add(ahead.wrapping_add(at * B::BYTES)), R::LANES * B::BYTES);
            }
            add_panel::<R, B, N>(r, columns, first, panel, at, &mut sums);
        }
        for (sum, row) in sums.into_iter().zip(&mut *rows) {
            let row = &mut row[position + at..][..R::LANES];
            // SAFETY: the slice has room for a register.
            unsafe { r.store(sum, row.as_mut_ptr()) };
        }
    }
}

/// Adds what 32 columns make of the scores of a register of positions.
#[inline(always)]
fn add_panel<R: Integers, B: Blocks, const N: usize>(
    r: R,
    columns: &[[f32; ROWS]; QUERY_COLUMNS],
    first: usize,
    panel: *const u8,
    at: usize,
    sums: &mut [R::V; ROWS],
) {
    let [quads @ .., offsets, scales] = columns;
    let mut dots = [r.begin(0.0); ROWS];
    macro_rules! begin {
        ($($row:literal)*) => {$( if $row < N { dots[$row] = r.begin(offsets[first + $row]); } )*};
    }
    for_each_row!(begin);
    for (i, query) in quads.iter().enumerate() {
        // SAFETY: the caller's panel, and as many positions as a register has lanes.
        let keys = unsafe { B::quad(r, panel, i, at) };
        macro_rules! dot {
            ($($row:literal)*) => {$(
                if $row < N {
                    dots[$row] = r.dot(dots[$row], keys, query[first + $row]);
                }
            )*};
        }
        for_each_row!(dot);
    }
    // SAFETY: a panel begins with the scales of its positions.
    let key_scales = unsafe { r.load::<f16>(panel.wrapping_add(2 * at)) };
    macro_rules! add {
        ($($row:literal)*) => {$(
            if $row < N {
                let scaled = r.mul(r.to_float(dots[$row]), key_scales);
                sums[$row] = r.mul_add(scaled, r.splat(scales[first + $row]), sums[$row]);
            }
        )*};
    }
    for_each_row!(add);
}

/// The twin that the others are tested against.
impl Integers for Plain {
    type I = [i32; 8];

    #[inline(always)]
    fn begin(self, _offset: f32) -> [i32; 8] {
        [0; 8]
    }

    #[inline(always)]
    fn dot(self, mut sums: [i32; 8], keys: [i32; 8], query: f32) -> [i32; 8] {
        for (sum, key) in sums.iter_mut().zip(keys) {
            for (k, q) in key.to_ne_bytes().into_iter().zip(query.to_ne_bytes()) {
                *sum += i32::from(k.cast_signed()) * i32::from(q.cast_signed());
            }
        }
        sums
    }

    #[inline(always)]
    fn to_float(self, sums: [i32; 8]) -> [f32; 8] {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    unsafe fn bytes(self, from: *const u8) -> [i32; 8] {
        // SAFETY: as the caller promises.
        unsafe { from.cast::<[i32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn nibbles(self, from: *const u8, upper: bool) -> [i32; 8] {
        let of_byte = |byte| nibble(byte, upper).cast_unsigned();
        // SAFETY: as the caller promises.
        unsafe { self.bytes(from) }.map(|four| i32::from_ne_bytes(four.to_ne_bytes().map(of_byte)))
    }

    #[inline(always)]
    unsafe fn half(self, from: *const u8) -> [f32; 8] {
        // SAFETY: as the caller promises.
        [half(unsafe { from.cast::<[u8; 2]>().read() }); 8]
    }

    #[inline(always)]
    unsafe fn float_bytes(self, from: *const u8) -> [f32; 8] {
        // SAFETY: as the caller promises.
        unsafe { from.cast::<[i8; 8]>().read() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn float_nibbles(self, from: *const u8, upper: bool) -> [f32; 8] {
        // SAFETY: as the caller promises.
        unsafe { from.cast::<[u8; 8]>().read() }.map(|byte| f32::from(nibble(byte, upper)))
    }
}

/// What the upper or the lower bits of a byte stand for.
#[inline(always)]
fn nibble(byte: u8, upper: bool) -> i8 {
    (if upper { byte >> 4 } else { byte & 15 }).cast_signed() - 8
}
