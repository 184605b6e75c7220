//! One matrix of a product, and where its results go.

use std::marker::PhantomData;
use std::ops::Range;

use super::Matrix;
use crate::activation;
use crate::activations::Q8_LEN;
use crate::gemm::{Gemm, ROWS};

/// One matrix of a [`matmul`](super::matmul) and where its results go.
#[derive(Debug)]
pub struct MatmulJob<'a> {
    pub(super) weights: Matrix<'a>,
    bias: Option<&'a [f32]>,
    accumulate: bool,
    out: Columns<'a>,
}

impl<'a> MatmulJob<'a> {
    /// A whole matrix: the output's rows, one a token, are as long as the matrix has rows.
    pub fn new(weights: Matrix<'a>, out: &'a mut [f32]) -> Self {
        Self::chunk(weights, out, weights.n_rows(), 0)
    }

    /// Some rows of a larger matrix of `stride` rows, beginning with its row `first`: token `t`'s result
    /// for row `r` of `weights` is `out[t * stride + first + r]`.
    ///
    /// # Panics
    /// If an output row of `stride` floats has no room for the results.
    pub fn chunk(weights: Matrix<'a>, out: &'a mut [f32], stride: usize, first: usize) -> Self {
        assert!(first <= stride && weights.n_rows() <= stride - first, "results fit in an output row");
        MatmulJob { weights, bias: None, accumulate: false, out: Columns::new(out, stride, first) }
    }

    /// The same with a number for each row of `weights` that is added to its results.
    ///
    /// # Panics
    /// If there are not as many.
    #[must_use]
    pub fn with_bias(mut self, bias: &'a [f32]) -> Self {
        assert_eq!(bias.len(), self.weights.n_rows(), "a bias for each row");
        self.bias = Some(bias);
        self
    }

    /// The same, but results are added to what the output holds.
    #[must_use]
    pub fn accumulating(mut self) -> Self {
        self.accumulate = true;
        self
    }

    /// Whether the output has a row for each of so many tokens.
    pub(super) fn has_room(&self, n_tokens: usize) -> bool {
        n_tokens.checked_mul(self.out.stride).is_some_and(|len| len <= self.out.len)
    }

    /// Rows of the matrix.
    pub(crate) fn n_rows(&self) -> usize {
        self.weights.n_rows()
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.weights.row_bytes
    }

    /// GEMM, where the type has it and rows are as it needs them.
    pub(crate) fn gemm(&self) -> Option<&Gemm> {
        self.weights.ops.gemm.as_ref().filter(|_| self.weights.row_len.is_multiple_of(Q8_LEN))
    }

    /// The bytes of some rows.
    pub(crate) fn rows(&self, rows: Range<usize>) -> &[u8] {
        self.weights.rows(rows).bytes
    }

    /// Stores the products of `rows` with the input of `token`, which are lost in `results`.
    ///
    /// # Safety
    /// No other call at the same time may be for the same token and any of the same rows.
    pub(crate) unsafe fn store(&self, token: usize, rows: Range<usize>, results: &mut [f32]) {
        if let Some(bias) = self.bias {
            activation::add(results, &bias[rows.clone()]);
        }
        // SAFETY: the caller's.
        let out = unsafe { self.out.row(token, rows) };
        if self.accumulate {
            activation::add(out, results);
        } else {
            out.copy_from_slice(results);
        }
    }
}

impl MatmulJob<'_> {
    /// Whether results are stored as they are, added to nothing.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_plain(&self) -> bool {
        !self.accumulate && self.bias.is_none()
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// What the results of some rows and tokens are added to, a row for each token.
    ///
    /// # Safety
    /// No other call at the same time may be for any of the same rows.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn start<const N: usize>(
        &self,
        tokens: Range<usize>,
        rows: Range<usize>,
        to: &mut [[f32; N]],
    ) {
        for (token, to) in tokens.zip(to) {
            let to = &mut to[..rows.len()];
            if self.accumulate {
                // SAFETY: the caller's.
                to.copy_from_slice(unsafe { self.out.row(token, rows.clone()) });
            } else {
                to.fill(0.0);
            }
            if let Some(bias) = self.bias {
                activation::add(to, &bias[rows.clone()]);
            }
        }
    }

    /// Stores results that are whole, a row for each token.
    ///
    /// # Safety
    /// As there.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn put<const N: usize>(
        &self,
        tokens: Range<usize>,
        rows: Range<usize>,
        results: &[[f32; N]],
    ) {
        for (token, results) in tokens.zip(results) {
            // SAFETY: the caller's.
            unsafe { self.out.row(token, rows.clone()) }.copy_from_slice(&results[..rows.len()]);
        }
    }

    /// Where the results of some rows and tokens are stored: the first, and how many floats further on those of the next token
    /// begin.
    ///
    /// # Safety
    /// As there, as long as they are used.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn place(&self, tokens: Range<usize>, rows: Range<usize>) -> (*mut f32, usize) {
        // SAFETY: the caller's; the last is after all the others.
        unsafe { self.out.row(tokens.end - 1, rows.clone()) };
        (
            self.out.start.wrapping_add(tokens.start * self.out.stride + self.out.first + rows.start),
            self.out.stride,
        )
    }

    /// Asks for the line where the results of [`ROWS`] rows from `first` on will be written for a token.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "not done elsewhere"))]
    pub(crate) fn prefetch(&self, token: usize, first: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

            let start = self.out.start.wrapping_add(token * self.out.stride + self.out.first + first);
            // SAFETY: a prefetch of any address is harmless.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(start.cast()) };
        }
    }

    /// [`store`](Self::store) for [`ROWS`] rows from `first` on and as many tokens from `token` on as there
    /// are results: a constant number of rows is copied by a few instructions, without a call.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn store_tile(&self, token: usize, first: usize, results: &mut [[f32; ROWS]]) {
        let rows = first..first + ROWS;
        if let Some(bias) = self.bias.and_then(|bias| bias[rows.clone()].first_chunk::<ROWS>()) {
            results.iter_mut().for_each(|results| add(results, bias));
        }
        for (i, results) in results.iter().enumerate() {
            // SAFETY: the caller's.
            let out = unsafe { self.out.row(token + i, rows.clone()) };
            match out.first_chunk_mut::<ROWS>() {
                Some(out) if self.accumulate => add(out, results),
                Some(out) => *out = *results,
                None => {}
            }
        }
    }
}

fn add(out: &mut [f32; ROWS], x: &[f32; ROWS]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
}

/// A matrix's columns of the output rows, which several workers write at once, each its own columns.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    first: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for an exclusive borrow of floats, which may move to and be used from any thread;
// that no float is used by two threads at once is what `row` asks of its callers.
unsafe impl Send for Columns<'_> {}
// SAFETY: as above.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    pub(crate) fn new(out: &'a mut [f32], stride: usize, first: usize) -> Self {
        Columns { start: out.as_mut_ptr(), len: out.len(), stride, first, borrow: PhantomData }
    }

    /// The outputs of weight rows `rows` for `token`.
    ///
    /// # Safety
    /// While the result lives, there must be no other for the same token and any of the same rows.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn row(&self, token: usize, rows: Range<usize>) -> &mut [f32] {
        let start = token * self.stride + self.first + rows.start;
        assert!(start + rows.len() <= self.len, "the token has an output row");
        // SAFETY: inside the borrowed slice, by the assertion; unaliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), rows.len()) }
    }
}
