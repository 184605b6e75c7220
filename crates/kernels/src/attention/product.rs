//! The two products of attention, written once over the registers of each instruction set: queries · keys
//! and weights · values.
//!
//! Both are sums over the rows of a matrix that is read where it lies, and each register of it serves up to
//! [`Registers::ROWS`] rows of the left side. The sums of these rows, two registers each or more, stay in registers
//! from the first to the last; so the rows are written out by a macro, for an array that a loop indexes
//! would live in memory.

use std::ops::Range;

use super::element::Element;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::pages::GROUP;
use super::softmax::Softmax;
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{POSITIONS, ROWS};
use crate::isa::Isa;

/// Scores of a tile's rows, and later their weights: one for each position of a step, or, packed, a pair for
/// each two.
pub(super) type Weights = [[f32; POSITIONS]; ROWS];

/// A tile's queries, column by column or pair by pair of columns, so that all rows of one are found from one
/// address.
pub(super) type Queries = [[f32; ROWS]];

/// The products on one instruction set, with keys and values of one type.
#[derive(Clone, Copy)]
pub(super) struct Products {
    /// Positions of values that one step of a sum takes: [`Format::NUMBERS`].
    pub(super) numbers: usize,
    /// Makes columns of so many numbers of a query: packs them where there are pairs.
    pub(super) pack_query: fn(&mut [f32; POSITIONS]),
    /// Makes weights ready for the products, likewise.
    pub(super) pack: fn(&mut [f32; POSITIONS]),
    /// See [`Scores`].
    pub(super) scores: fn(Scores<'_>, &mut Weights),
    /// See [`Values`].
    pub(super) values: fn(Values<'_>, Sums<'_>),
    /// [`Softmax::weigh`].
    pub(super) weigh: fn(&mut [f32; POSITIONS], Range<usize>) -> Softmax,
    /// `sums = sums · factors[0] + part · factors[1]`, as `values` does it: `(sums, part, factors)`.
    pub(super) fold: fn(&mut [f32], &[f32], [f32; 2]),
}

/// `weights[row][32 · (first + g) + p] = Σ queries[i][row] · groups[g][i][p]`, where a product of pairs is the
/// sum of two products.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    pub(super) queries: &'a Queries,
    pub(super) n_rows: usize,
    /// Groups of keys: 32 positions by as many columns, or pairs of columns, as the queries have.
    pub(super) groups: &'a [u8],
    /// Number of the first group in the step.
    pub(super) first: usize,
    /// How much further on lies what to fetch meanwhile, in bytes; wraps around.
    pub(super) ahead: usize,
}

/// `sums[row] = Σ weights[row][first + i] · values[i]`, likewise.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) weights: &'a Weights,
    /// Place in the weights of what belongs to the first of the values.
    pub(super) first: usize,
    /// `dim` elements for each position, or two positions.
    pub(super) values: &'a [u8],
    pub(super) dim: usize,
    /// How much further on lies what to fetch meanwhile, in bytes; wraps around.
    pub(super) ahead: usize,
}

/// Where sums of values go: a row at each of `starts`.
pub(super) struct Sums<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) starts: &'a [usize],
    /// For each row, what the sums so far and the new ones are multiplied by before they are added; without,
    /// the new ones are written over what was there.
    pub(super) fold: Option<&'a [[f32; 2]; ROWS]>,
}

impl Products {
    pub(super) fn of<E: Element>(isa: Isa) -> Self {
        match isa {
            Isa::Scalar => Products {
                numbers: <E as Format<Plain>>::NUMBERS,
                pack_query: pack::<E>,
                pack: pack::<E>,
                scores: |scores_of, out| scores::<Plain, E>(Plain, scores_of, out),
                values: |values, sums| weighted::<Plain, E>(Plain, values, sums),
                weigh: Softmax::weigh,
                fold: |sums, part, factors| fold(Plain, sums, part, factors),
            },
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonI8mm => neon::products::<E>(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 | Isa::Amx => x86::products::<E>(isa.vectors()),
        }
    }
}

/// The registers of one instruction set. A value proves that this CPU has it.
pub(super) trait Registers: Copy {
    /// [`LANES`](Self::LANES) floats.
    type V: Copy;
    const LANES: usize;
    /// Rows whose sums, two registers each, fit the instruction set's registers; at most [`ROWS`].
    const ROWS: usize;

    fn splat(self, x: f32) -> Self::V;
    /// Reads a register of elements.
    ///
    /// # Safety
    /// There are as many at `from`, at any alignment.
    unsafe fn load<E: Element>(self, from: *const u8) -> Self::V;
    /// Writes a register of floats.
    ///
    /// # Safety
    /// There is room for them at `to`.
    unsafe fn store(self, x: Self::V, to: *mut f32);

    /// Reads the first `n` elements, and zeros in the other lanes.
    ///
    /// # Safety
    /// There are `n` elements at `from`, at any alignment.
    #[inline(always)]
    unsafe fn load_first<E: Element>(self, from: *const u8, n: usize) -> Self::V {
        const { assert!(Self::LANES <= 8) };
        if n == Self::LANES {
            // SAFETY: as the caller promises.
            return unsafe { self.load::<E>(from) };
        }
        let mut whole = [E::default(); 8];
        for (i, element) in whole.iter_mut().enumerate().take(n) {
            // SAFETY: as the caller promises.
            *element = unsafe { from.cast::<E>().add(i).read_unaligned() };
        }
        // SAFETY: the array has elements for all lanes.
        unsafe { self.load::<E>(whole.as_ptr().cast()) }
    }

    /// Writes the first `n` floats.
    ///
    /// # Safety
    /// There is room for `n` floats at `to`.
    #[inline(always)]
    unsafe fn store_first(self, x: Self::V, to: *mut f32, n: usize) {
        const { assert!(Self::LANES <= 8) };
        if n == Self::LANES {
            // SAFETY: as the caller promises.
            return unsafe { self.store(x, to) };
        }
        let mut whole = [0.0; 8];
        // SAFETY: the array has room for all lanes, and at `to` there is room for the first of them.
        unsafe {
            self.store(x, whole.as_mut_ptr());
            to.copy_from_nonoverlapping(whole.as_ptr(), n);
        }
    }

    /// Has memory at `from`, which may be any address, brought to the caches.
    fn prefetch(self, from: *const u8);
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The same for lanes of `a` and `b` that are pairs of bfloat16: both products are added.
    fn mul_add_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// Whichever `F` wants.
    #[inline(always)]
    fn mul_add_of<F: Format<Self>>(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        if F::NUMBERS == 2 { self.mul_add_pairs(a, b, c) } else { self.mul_add(a, b, c) }
    }
}

/// How a row of keys or values lies in memory, and comes to registers.
pub(super) trait Format<R: Registers> {
    /// [`Element::NUMBERS`].
    const NUMBERS: usize;
    /// Bytes of 32 elements.
    const BYTES_OF_32: usize;

    /// Bytes of a row.
    fn row_bytes(n: usize) -> usize;

    /// Reads `n` elements from `column` on, a multiple of as many as there are lanes; what is in the other lanes
    /// does not matter.
    ///
    /// # Safety
    /// The row at `row`, at any alignment, has `n` elements from there on.
    unsafe fn load(r: R, row: *const u8, column: usize, n: usize) -> R::V;
}

impl<R: Registers, E: Element> Format<R> for E {
    const NUMBERS: usize = E::NUMBERS;
    const BYTES_OF_32: usize = 32 * E::BYTES;

    #[inline(always)]
    fn row_bytes(n: usize) -> usize {
        n * E::BYTES
    }

    #[inline(always)]
    unsafe fn load(r: R, row: *const u8, column: usize, n: usize) -> R::V {
        // SAFETY: as promised.
        unsafe { r.load_first::<E>(row.wrapping_add(column * E::BYTES), n) }
    }
}

/// Rounds floats to pairs, each in the place of a float, where `E` is a pair.
#[inline(always)]
pub(super) fn pack<E: Element>(x: &mut [f32; POSITIONS]) {
    if E::NUMBERS == 2 {
        let mut pairs = [E::default(); POSITIONS / 2];
        E::round(x, &mut pairs);
        x.iter_mut().zip(pairs).for_each(|(x, pair)| *x = pair.lane());
    }
}

/// `$step!(row)` for each row of a tile.
macro_rules! for_each_row {
    ($step:ident) => {
        $step!(0 1 2 3 4 5 6 7 8 9 10 11)
    };
}

/// `C` registers of sums for each of up to 12 rows: `Σ left[i · STEP + row · ROW] · right[i · stride ..]`.
/// Where `right` has pairs, so has `left`.
///
/// # Safety
/// For `i` below `n`: `left` has the floats that the formula names for `row < N`, and the row of `right` has
/// elements for the lanes of the registers at `columns`. `stride` and `ahead` are in bytes.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices, and which part of one")]
unsafe fn sums<
    R: Registers,
    F: Format<R>,
    const N: usize,
    const C: usize,
    const ROW: usize,
    const STEP: usize,
>(
    r: R,
    mut left: *const f32,
    mut right: *const u8,
    stride: usize,
    n: usize,
    columns: [usize; C],
    lanes: [usize; C],
    ahead: usize,
) -> [[R::V; C]; ROWS] {
    let ahead = ahead.wrapping_add(columns[0] * F::BYTES_OF_32 / 32);
    let mut sums = [[r.splat(0.0); C]; ROWS];
    for _ in 0..n {
        let mut registers = [r.splat(0.0); C];
        for (c, register) in registers.iter_mut().enumerate() {
            // SAFETY: as promised.
            *register = unsafe { F::load(r, right, columns[c], lanes[c]) };
        }
        if N < R::ROWS {
            prefetch(r, right.wrapping_add(ahead), C * R::LANES * F::BYTES_OF_32 / 32);
        }
        macro_rules! step {
            ($($row:literal)*) => {$(
                if $row < N {
                    // SAFETY: as promised.
                    let x = r.splat(unsafe { *left.wrapping_add($row * ROW) });
                    for (sum, register) in sums[$row].iter_mut().zip(registers) {
                        *sum = r.mul_add_of::<F>(x, register, *sum);
                    }
                }
            )*};
        }
        for_each_row!(step);
        left = left.wrapping_add(STEP);
        right = right.wrapping_add(stride);
    }
    sums
}

/// Has `n` bytes at `from` brought to the caches. Only for tiles that are not full: a full one takes longer to
/// multiply than to read.
#[inline(always)]
pub(super) fn prefetch<R: Registers>(r: R, from: *const u8, n: usize) {
    for line in (0..n).step_by(64) {
        r.prefetch(from.wrapping_add(line));
    }
}

/// Whether rows are so few that there are registers for a wider strip of columns.
const fn is_few<R: Registers>(n_rows: usize) -> bool {
    3 * n_rows <= R::ROWS
}

pub(super) use for_each_row;

/// Calls `$run::<N>(…)` with the smallest `N` that is at least `$n`, of those that are worth their code.
macro_rules! with_rows {
    ($r:ty, $n:expr, $run:ident::<$($generic:ty),*> $arguments:tt) => {
        match $n {
            1 => $run::<$($generic),*, 1> $arguments,
            2 => $run::<$($generic),*, 2> $arguments,
            3 => $run::<$($generic),*, 3> $arguments,
            4 => $run::<$($generic),*, 4> $arguments,
            5 | 6 => $run::<$($generic),*, 6> $arguments,
            7 | 8 if <$r>::ROWS > 6 => $run::<$($generic),*, 8> $arguments,
            _ if <$r>::ROWS > 6 => $run::<$($generic),*, 12> $arguments,
            _ => unreachable!("no more rows than the instruction set takes"),
        }
    };
}
pub(super) use with_rows;

#[inline(always)]
pub(super) fn scores<R: Registers, E: Element>(r: R, scores: Scores<'_>, weights: &mut Weights) {
    let Scores { queries, n_rows, groups, first, ahead } = scores;
    let group_bytes = queries.len() * GROUP * E::BYTES;
    for (g, group) in groups.chunks_exact(group_bytes).enumerate() {
        for row in (0..n_rows).step_by(R::ROWS) {
            let n = R::ROWS.min(n_rows - row);
            let column = (first + g) * GROUP;
            with_rows!(R, n, scores_of_group::<R, E>(r, queries, row, n, group, column, ahead, weights));
        }
    }
}

/// Scores of `n` rows from `first` on, `n <= N`, for one group.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices, and which part of one")]
fn scores_of_group<R: Registers, E: Element, const N: usize>(
    r: R,
    queries: &Queries,
    first: usize,
    n: usize,
    group: &[u8],
    column: usize,
    ahead: usize,
    weights: &mut Weights,
) {
    let rows = &mut weights[first..first + n];
    assert!(first + N <= ROWS && group.len() == queries.len() * GROUP * E::BYTES);
    for at in (0..GROUP).step_by(2 * R::LANES) {
        let lanes = [R::LANES; 2];
        let left = queries.as_flattened()[first..].as_ptr();
        let (right, stride, columns) = (group.as_ptr(), GROUP * E::BYTES, [at, at + R::LANES]);
        // SAFETY: column `i` of the queries has `ROWS` floats, and row `i` of the group `GROUP` elements.
        let sums = unsafe {
            sums::<R, E, N, 2, 1, ROWS>(r, left, right, stride, queries.len(), columns, lanes, ahead)
        };
        for (sums, row) in sums.into_iter().zip(&mut *rows) {
            let row = &mut row[column + at..][..2 * R::LANES];
            for (i, sum) in sums.into_iter().enumerate() {
                // SAFETY: the slice has room for two registers.
                unsafe { r.store(sum, row[i * R::LANES..].as_mut_ptr()) };
            }
        }
    }
}

#[inline(always)]
pub(super) fn weighted<R: Registers, F: Format<R>>(r: R, values: Values<'_>, mut sums: Sums<'_>) {
    let n_rows = sums.starts.len();
    for row in (0..n_rows).step_by(R::ROWS) {
        let n = R::ROWS.min(n_rows - row);
        with_rows!(R, n, weighted_rows::<R, F>(r, values, row, n, &mut sums));
    }
}

/// Sums of `n` rows from `first_row` on, `n <= N`.
#[inline(always)]
fn weighted_rows<R: Registers, F: Format<R>, const N: usize>(
    r: R,
    values: Values<'_>,
    first_row: usize,
    n: usize,
    out: &mut Sums<'_>,
) {
    if is_few::<R>(N) {
        weighted_strips::<R, F, N, 4>(r, values, first_row, n, out);
    } else {
        weighted_strips::<R, F, N, 2>(r, values, first_row, n, out);
    }
}

/// The same, `C` registers of columns at a time.
#[inline(always)]
fn weighted_strips<R: Registers, F: Format<R>, const N: usize, const C: usize>(
    r: R,
    values: Values<'_>,
    first_row: usize,
    n_rows: usize,
    out: &mut Sums<'_>,
) {
    let Values { weights, first, values, dim, ahead } = values;
    let stride = F::row_bytes(dim);
    let n = values.len() / stride;
    let last = (dim - 1) / R::LANES * R::LANES;
    assert!(first_row + N <= ROWS && first + n <= POSITIONS);
    for column in (0..dim).step_by(C * R::LANES) {
        let (mut columns, mut lanes) = ([column; C], [R::LANES; C]);
        for (c, (column, lanes)) in columns.iter_mut().zip(&mut lanes).enumerate() {
            *column += c * R::LANES;
            *lanes = R::LANES.min(dim.saturating_sub(*column));
            // A register too many reads nothing, or what another does.
            *column = last.min(*column);
        }
        let left = weights[first_row][first..].as_ptr();
        let right = values.as_ptr();
        // SAFETY: `N` rows of weights from the first on have one for each position, as asserted, and the
        // lanes end where the values of a position do.
        let sums =
            unsafe { sums::<R, F, N, C, POSITIONS, 1>(r, left, right, stride, n, columns, lanes, ahead) };
        for (i, sums) in sums.into_iter().enumerate().take(n_rows) {
            let row = &mut out.data[out.starts[first_row + i]..][..dim];
            let factors = out.fold.map(|fold| fold[first_row + i]);
            for (c, sum) in sums.into_iter().enumerate() {
                let Some(row) = row.get_mut(column + c * R::LANES..) else { break };
                // SAFETY: the lanes end where the row does.
                unsafe { put(r, sum, factors, row.as_mut_ptr(), lanes[c]) };
            }
        }
    }
}

/// Writes the first `n` sums, or adds them to what is there, both multiplied by their factors.
///
/// # Safety
/// There are `n` floats at `to`.
#[inline(always)]
unsafe fn put<R: Registers>(r: R, mut sums: R::V, factors: Option<[f32; 2]>, to: *mut f32, n: usize) {
    if let Some([kept, gain]) = factors {
        // SAFETY: as promised.
        let before = unsafe { r.load_first::<f32>(to.cast(), n) };
        sums = r.mul_add(sums, r.splat(gain), r.mul(before, r.splat(kept)));
    }
    // SAFETY: as promised.
    unsafe { r.store_first(sums, to, n) };
}

#[inline(always)]
pub(super) fn fold<R: Registers>(r: R, sums: &mut [f32], part: &[f32], factors: [f32; 2]) {
    assert_eq!(sums.len(), part.len(), "parts are as long as their sum");
    for (sums, part) in sums.chunks_mut(R::LANES).zip(part.chunks(R::LANES)) {
        let n = sums.len();
        // SAFETY: both chunks have as many floats.
        unsafe { put(r, r.load_first::<f32>(part.as_ptr().cast(), n), Some(factors), sums.as_mut_ptr(), n) };
    }
}

/// Plain arrays: the twin that the others are tested against.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Registers for Plain {
    type V = [f32; 8];
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    unsafe fn load<E: Element>(self, from: *const u8) -> [f32; 8] {
        // SAFETY: as the caller promises.
        std::array::from_fn(|i| unsafe { from.cast::<E>().add(i).read_unaligned() }.lane())
    }

    #[inline(always)]
    unsafe fn store(self, x: [f32; 8], to: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<[f32; 8]>().write(x) };
    }

    #[inline(always)]
    fn prefetch(self, _from: *const u8) {}

    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        self.mul_add(a, b, [0.0; 8])
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; 8], b: [f32; 8], mut c: [f32; 8]) -> [f32; 8] {
        for ((c, a), b) in c.iter_mut().zip(a).zip(b) {
            *c += a * b;
        }
        c
    }

    #[inline(always)]
    fn mul_add_pairs(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        let first = |x: [f32; 8]| x.map(|x| f32::from_bits(x.to_bits() << 16));
        let second = |x: [f32; 8]| x.map(|x| f32::from_bits(x.to_bits() & 0xffff_0000));
        self.mul_add(second(a), second(b), self.mul_add(first(a), first(b), c))
    }
}
