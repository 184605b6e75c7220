//! Matrices of weight rows times rows of activations.
//!
//! Each worker takes one contiguous range of each matrix's rows and walks it from start to end: one
//! sequential stream a thread is what memory serves fastest. With several tokens it takes the rows a
//! tile at a time, so that a tile stays in the first-level cache while all tokens meet it.
//!
//! Every result is one call of the format's `dot` on one whole row. So its bits depend on that row and
//! that token alone: not on the number of threads, tokens or rows in the call.

use std::marker::PhantomData;
use std::ops::Range;

use metallic_gguf::GgmlType;

use crate::activations::{GROUP_BLOCKS, Q8_LEN, Q8Block, Q8Group, group_q8, quantize_q8};
use crate::gemm;
use crate::isa::Isa;
use crate::pool::{ThreadPool, part};
use crate::registry::{self, Dot, QuantOps};

/// Weight bytes that a worker keeps in its first-level cache while it walks the tokens.
const TILE_BYTES: usize = 16 << 10;

/// Tokens from which on expanding weights for all of them is faster than a product for each.
const MIN_GEMM_TOKENS: usize = 8;

/// Whether inputs of so many tokens are multiplied in tiles.
fn gemm_serves(isa: Isa, n_tokens: usize) -> bool {
    n_tokens >= MIN_GEMM_TOKENS && registry::ops(GgmlType::Q8_0, isa).gemm.is_some()
}

/// Blocks of activations below which waking the pool costs more than quantizing them.
const MIN_SHARED_BLOCKS: usize = 512;

/// Rows of weights of one type, borrowed: a whole tensor, or some consecutive rows of it.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    ops: QuantOps,
    row_len: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> Matrix<'a> {
    /// The rows in `bytes`, each of `row_len` weights.
    ///
    /// # Panics
    /// If `row_len` is zero or not a whole number of blocks, or `bytes` not a whole number of rows. A
    /// tensor that came out of a validated file passes.
    pub fn new(ops: QuantOps, row_len: usize, bytes: &'a [u8]) -> Self {
        let row_bytes = ops.ggml_type.row_bytes(row_len as u64).expect("a row is a whole number of blocks");
        let row_bytes = usize::try_from(row_bytes).expect("a row fits in memory");
        assert!(row_bytes > 0 && bytes.len().is_multiple_of(row_bytes), "a matrix is a whole number of rows");
        Matrix { ops, row_len, row_bytes, bytes }
    }

    /// The functions that compute on these rows.
    pub fn ops(&self) -> &QuantOps {
        &self.ops
    }

    /// Number of rows: outputs of this matrix.
    pub fn n_rows(&self) -> usize {
        self.bytes.len() / self.row_bytes
    }

    /// Weights in a row: inputs of this matrix.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// The bytes of row `r`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, r: usize) -> &'a [u8] {
        &self.bytes[r * self.row_bytes..][..self.row_bytes]
    }

    /// The rows of `range` as a matrix.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn rows(&self, range: Range<usize>) -> Matrix<'a> {
        let bytes = &self.bytes[range.start * self.row_bytes..range.end * self.row_bytes];
        Matrix { bytes, ..*self }
    }

    /// Decodes row `r` to floats.
    ///
    /// # Panics
    /// If there is no such row, or `out.len()` is not the row's length.
    pub fn decode_row(&self, r: usize, out: &mut [f32]) {
        (self.ops.decode)(self.row(r), out);
    }
}

/// Quantized inputs, kept between calls so that a token allocates nothing.
#[derive(Debug)]
pub struct ActivationBuf {
    isa: Isa,
    blocks: Vec<Q8Block>,
    groups: Vec<Q8Group>,
    gemm: gemm::Scratch,
}

impl ActivationBuf {
    /// An empty buffer, filled with the instructions of `isa`.
    pub fn new(isa: Isa) -> Self {
        ActivationBuf { isa, blocks: Vec::new(), groups: Vec::new(), gemm: gemm::Scratch::default() }
    }

    /// Makes room for inputs of `n_rows` rows of `row_len` values on `n_threads` threads, so that calls up
    /// to that size allocate nothing.
    pub fn reserve(&mut self, n_threads: usize, n_rows: usize, row_len: usize) {
        let n_blocks = row_len.div_ceil(Q8_LEN);
        gemm::grow(&mut self.blocks, n_rows * n_blocks, Q8Block::ZERO);
        gemm::grow(&mut self.groups, n_groups(self.isa, n_rows, n_blocks), Q8Group::ZERO);
        if gemm_serves(self.isa, n_rows) {
            self.gemm.reserve(n_threads, n_rows, n_blocks);
        }
    }

    /// Bytes that `reserve` allocates on `isa`.
    pub fn reserved_bytes(isa: Isa, n_threads: usize, n_rows: usize, row_len: usize) -> u64 {
        let n_blocks = row_len.div_ceil(Q8_LEN);
        let tiles_and_panels = if gemm_serves(isa, n_rows) {
            gemm::Scratch::reserved_bytes(n_threads, n_rows, n_blocks)
        } else {
            0
        };
        let groups = n_groups(isa, n_rows, n_blocks) * size_of::<Q8Group>();
        (n_rows * n_blocks * size_of::<Q8Block>() + groups) as u64 + tiles_and_panels
    }

    /// Quantizes `x`, rows of `row_len` values, to the first blocks.
    fn quantize(&mut self, pool: &ThreadPool, x: &[f32], row_len: usize) {
        assert!(row_len.is_multiple_of(Q8_LEN), "an integer format's rows are whole activation blocks");
        self.reserve(pool.n_threads(), x.len() / row_len, row_len);
        let isa = self.isa;
        let blocks = &mut self.blocks[..x.len() / Q8_LEN];
        if blocks.len() < MIN_SHARED_BLOCKS {
            quantize_q8(isa, x, blocks);
        } else {
            pool.split_rows(blocks, 1, &|first, blocks| {
                quantize_q8(isa, &x[first * Q8_LEN..][..blocks.len() * Q8_LEN], blocks);
            });
        }
    }

    /// Sorts the blocks of `n_tokens` rows, `n_blocks` each, into groups.
    fn group(&mut self, n_tokens: usize, n_blocks: usize) {
        let per_token = n_blocks.div_ceil(GROUP_BLOCKS);
        let rows = self.blocks.chunks_exact(n_blocks).zip(self.groups.chunks_exact_mut(per_token));
        rows.take(n_tokens).for_each(|(row, groups)| group_q8(row, groups));
    }
}

/// Groups for inputs of `n_rows` rows: for so few tokens that each meets the rows by itself, where the
/// kernels take groups.
fn n_groups(isa: Isa, n_rows: usize, n_blocks: usize) -> usize {
    match registry::ops(GgmlType::Q8_0, isa).dot {
        Dot::Q8Groups(_) => n_rows.min(MIN_GEMM_TOKENS - 1) * n_blocks.div_ceil(GROUP_BLOCKS),
        Dot::Q8(_) | Dot::F32(_) => 0,
    }
}

/// One matrix of a [`matmul`] and where its results go.
#[derive(Debug)]
pub struct MatmulJob<'a> {
    weights: Matrix<'a>,
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
        MatmulJob { weights, out: Columns::new(out, stride, first) }
    }

    /// Rows of the matrix.
    pub(crate) fn n_rows(&self) -> usize {
        self.weights.n_rows()
    }

    /// Bytes of a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.weights.row_bytes
    }

    /// The bytes of some rows.
    pub(crate) fn rows(&self, rows: Range<usize>) -> &[u8] {
        self.weights.rows(rows).bytes
    }

    /// Where the results of `rows` for `token` go.
    ///
    /// # Safety
    /// While the result lives, there must be no other for the same token and any of the same rows.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    pub(crate) unsafe fn out(&self, token: usize, rows: Range<usize>) -> &mut [f32] {
        // SAFETY: the caller's.
        unsafe { self.out.row(token, rows) }
    }

    /// Computes the results of `rows` for every token. `x` holds a row of `x_len` items for each token.
    ///
    /// # Safety
    /// No other call at the same time may have any of `rows`.
    unsafe fn multiply<X>(&self, rows: Range<usize>, x: &[X], x_len: usize, dot: fn(&[u8], &[X]) -> f32) {
        let tile = (TILE_BYTES / self.weights.row_bytes).max(1);
        for start in rows.clone().step_by(tile) {
            let tile = start..(start + tile).min(rows.end);
            for (token, x) in x.chunks_exact(x_len).enumerate() {
                // SAFETY: the caller's: nobody else has these rows.
                let out = unsafe { self.out.row(token, tile.clone()) };
                for (r, out) in tile.clone().zip(out) {
                    *out = dot(self.weights.row(r), x);
                }
            }
        }
    }
}

/// A matrix's columns of the output rows, which several workers write at once, each its own columns.
#[derive(Debug)]
struct Columns<'a> {
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
    fn new(out: &'a mut [f32], stride: usize, first: usize) -> Self {
        Columns { start: out.as_mut_ptr(), len: out.len(), stride, first, borrow: PhantomData }
    }

    fn has_rows(&self, n_tokens: usize) -> bool {
        n_tokens.checked_mul(self.stride).is_some_and(|len| len <= self.len)
    }

    /// The outputs of weight rows `rows` for `token`.
    ///
    /// # Safety
    /// While the result lives, there must be no other for the same token and any of the same rows.
    #[expect(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    unsafe fn row(&self, token: usize, rows: Range<usize>) -> &mut [f32] {
        let start = token * self.stride + self.first + rows.start;
        assert!(start + rows.len() <= self.len, "the token has an output row");
        // SAFETY: inside the borrowed slice, by the assertion; unaliased, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), rows.len()) }
    }
}

/// Multiplies each job's matrix with the `n_tokens` rows of `x`, which is quantized at most once.
///
/// # Panics
/// If `x` is not `n_tokens` rows of every job's row length, or a job's output is shorter than that many
/// rows.
pub fn matmul(
    pool: &ThreadPool,
    jobs: &mut [MatmulJob<'_>],
    x: &[f32],
    n_tokens: usize,
    scratch: &mut ActivationBuf,
) {
    if n_tokens == 0 {
        return;
    }
    let row_len = x.len() / n_tokens;
    for job in jobs.iter() {
        assert_eq!(
            x.len(),
            n_tokens * job.weights.row_len,
            "the input is n_tokens rows of the matrix's length"
        );
        assert!(job.out.has_rows(n_tokens), "the output has a row for each token");
    }
    let integer = jobs.iter().any(|job| !matches!(job.weights.ops.dot, Dot::F32(_)));
    if integer {
        scratch.quantize(pool, x, row_len);
    }
    let n_blocks = row_len / Q8_LEN;
    let grouped =
        n_tokens < MIN_GEMM_TOKENS && jobs.iter().any(|job| matches!(job.weights.ops.dot, Dot::Q8Groups(_)));
    if grouped {
        scratch.group(n_tokens, n_blocks);
    }
    let ActivationBuf { blocks, groups, gemm: gemm_scratch, .. } = scratch;
    let n_groups = n_blocks.div_ceil(GROUP_BLOCKS);
    let groups = if grouped { &groups[..n_tokens * n_groups] } else { &[] };
    let quantized = if integer { &blocks[..n_tokens * n_blocks] } else { &[] };
    let jobs = &*jobs;
    let at_once = |job: &&MatmulJob<'_>| n_tokens >= MIN_GEMM_TOKENS && job.weights.ops.gemm.is_some();
    let products: Vec<_> =
        jobs.iter().filter(at_once).filter_map(|job| Some((job.weights.ops.gemm?, job))).collect();
    if !products.is_empty() {
        gemm::multiply(pool, &products, quantized, n_blocks, gemm_scratch);
    }
    if products.len() == jobs.len() {
        return;
    }
    pool.run(&|worker| {
        for job in jobs.iter().filter(|job| !at_once(job)) {
            let rows = part(job.weights.n_rows(), 1, worker, pool.n_threads());
            // SAFETY: `part` gives each worker rows of its own, and `jobs` is borrowed exclusively.
            unsafe {
                match job.weights.ops.dot {
                    Dot::Q8(dot) => job.multiply(rows, quantized, n_blocks, dot),
                    Dot::Q8Groups(dot) => job.multiply(rows, groups, n_groups, dot),
                    Dot::F32(dot) => job.multiply(rows, x, row_len, dot),
                }
            }
        }
    });
}
