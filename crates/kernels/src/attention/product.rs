//! The product of rows and half-precision columns that both halves of attention are, written once over
//! the registers of each instruction set.

use half::f16;
use half::slice::HalfFloatSliceExt;

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::isa::Isa;

/// `sums = sums · factors + rows · matrix`.
pub(super) type Multiply = fn(Rows<'_>, Matrix<'_>, Sums<'_>);

/// The product on one instruction set.
pub(super) fn of(isa: Isa) -> Multiply {
    match isa {
        Isa::Scalar => |rows, matrix, sums| multiply(Plain, rows, matrix, sums),
        // SAFETY: an `Isa::Avx2` proves that this CPU has what the function is compiled for.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => |rows, matrix, sums| unsafe { x86::multiply_avx2(rows, matrix, sums) },
        // SAFETY: an `Isa::Avx512` proves the same.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => |rows, matrix, sums| unsafe { x86::multiply_avx512(rows, matrix, sums) },
    }
}

/// Rows of floats in one slice.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    /// Where each row begins.
    pub(super) starts: &'a [usize],
    pub(super) len: usize,
}

/// A matrix in half precision: as many rows as the left factor has columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f16],
    /// Length of a row.
    pub(super) n_columns: usize,
}

/// Where a product is added: a row of `n_columns` for each row of the left factor.
pub(super) struct Sums<'a> {
    pub(super) data: &'a mut [f32],
    /// Where each row begins.
    pub(super) starts: &'a [usize],
    /// What each row is multiplied by before; without, the rows are overwritten.
    pub(super) factors: Option<&'a [f32]>,
}

/// The registers of one instruction set. A value proves that this CPU has it.
pub(super) trait Registers: Copy {
    /// [`LANES`](Self::LANES) floats.
    type V: Copy;
    const LANES: usize;

    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` of `x`, with zeros after the last where it has fewer.
    fn load(self, x: &[f32]) -> Self::V;
    /// As [`load`](Self::load), from half precision.
    fn load_f16(self, x: &[f16]) -> Self::V;
    /// Writes the first lanes to `out`, as many as it has.
    fn store(self, x: Self::V, out: &mut [f32]);
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// `sums = sums · factors + rows · matrix`. Each sum takes its products one after another, from the first row
/// of the matrix to the last, whatever else is computed beside it.
///
/// Six rows at a time: their sums, two registers each, fit the 16 registers of AVX2. AVX-512 has room for 12,
/// but a loop over so many is not unrolled, which made it slower.
#[inline(always)]
pub(super) fn multiply<R: Registers>(r: R, rows: Rows<'_>, matrix: Matrix<'_>, sums: Sums<'_>) {
    let mut first = 0;
    while first < rows.starts.len() {
        let n = (rows.starts.len() - first).min(6);
        let rows = Rows { starts: &rows.starts[first..first + n], ..rows };
        let sums = Sums {
            data: &mut *sums.data,
            starts: &sums.starts[first..first + n],
            factors: sums.factors.map(|factors| &factors[first..first + n]),
        };
        match n {
            1 => columns::<R, 1>(r, rows, matrix, sums),
            2 => columns::<R, 2>(r, rows, matrix, sums),
            3 => columns::<R, 3>(r, rows, matrix, sums),
            4 => columns::<R, 4>(r, rows, matrix, sums),
            5 => columns::<R, 5>(r, rows, matrix, sums),
            _ => columns::<R, 6>(r, rows, matrix, sums),
        }
        first += n;
    }
}

/// [`multiply`] for `N` rows.
#[inline(always)]
fn columns<R: Registers, const N: usize>(r: R, rows: Rows<'_>, matrix: Matrix<'_>, mut sums: Sums<'_>) {
    let mut column = 0;
    while column + 2 * R::LANES <= matrix.n_columns {
        tile::<R, N, 2>(r, rows, matrix, &mut sums, column, R::LANES);
        column += 2 * R::LANES;
    }
    while column < matrix.n_columns {
        let n = R::LANES.min(matrix.n_columns - column);
        tile::<R, N, 1>(r, rows, matrix, &mut sums, column, n);
        column += n;
    }
}

/// `N` rows by `C` registers of `width` columns from `first` on.
#[inline(always)]
fn tile<R: Registers, const N: usize, const C: usize>(
    r: R,
    rows: Rows<'_>,
    matrix: Matrix<'_>,
    sums: &mut Sums<'_>,
    first: usize,
    width: usize,
) {
    let mut left = [&[] as &[f32]; N];
    for (left, &start) in left.iter_mut().zip(rows.starts) {
        *left = &rows.data[start..][..rows.len];
    }
    let mut acc = [[r.splat(0.0); C]; N];
    if let Some(factors) = sums.factors {
        for ((acc, &start), &factor) in acc.iter_mut().zip(sums.starts).zip(factors) {
            let factor = r.splat(factor);
            for (acc, out) in acc.iter_mut().zip(sums.data[start + first..].chunks(width)) {
                *acc = r.mul(r.load(&out[..width]), factor);
            }
        }
    }
    let mut matrix_rows = matrix.data.chunks_exact(matrix.n_columns);
    for i in 0..rows.len {
        let Some(row) = matrix_rows.next() else { break };
        let row = &row[first..first + C * width];
        let mut right = [r.splat(0.0); C];
        for (j, right) in right.iter_mut().enumerate() {
            *right = r.load_f16(&row[j * width..(j + 1) * width]);
        }
        for (acc, left) in acc.iter_mut().zip(&left) {
            let x = r.splat(left[i]);
            for (acc, right) in acc.iter_mut().zip(&right) {
                *acc = r.mul_add(x, *right, *acc);
            }
        }
    }
    for (acc, &start) in acc.iter().zip(sums.starts) {
        for (j, acc) in acc.iter().enumerate() {
            r.store(*acc, &mut sums.data[start + first + j * width..][..width]);
        }
    }
}

/// Plain arrays: the twin that the others are tested against.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Registers for Plain {
    type V = [f32; 8];
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> [f32; 8] {
        let mut out = [0.0; 8];
        out.iter_mut().zip(x).for_each(|(out, x)| *out = *x);
        out
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> [f32; 8] {
        let mut out = [0.0; 8];
        let n = x.len().min(8);
        x[..n].convert_to_f32_slice(&mut out[..n]);
        out
    }

    #[inline(always)]
    fn store(self, x: [f32; 8], out: &mut [f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x);
    }

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
}
