//! Matrices of weight rows times rows of activations.
//!
//! A few tokens meet the weights one row at a time. Each worker takes one contiguous range of each matrix's
//! rows and walks it from start to end: one sequential stream a thread is what memory serves fastest. With
//! several tokens it takes the rows a tile at a time, so that a tile stays in the first-level cache while
//! all tokens meet it. Each result is the format's product of one whole row.
//!
//! Many tokens meet the weights in register tiles (`gemm`).
//!
//! The bits of a result depend on its row and its token alone, and on which of the two ways is taken: not on
//! the number of threads or rows in the call.

mod input;
mod job;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use metallic_gguf::GgmlType;

pub(crate) use self::input::Forms;
pub use self::input::Input;
pub(crate) use self::input::InputRows;
pub use self::job::MatmulJob;
use crate::activations::{self, Q8_LEN};
use crate::buffer::grow;
use crate::gemm::{self, Line};
use crate::isa::Isa;
use crate::pool::{ThreadPool, part};
use crate::registry::{self, Dot, QuantOps};

/// Weight bytes that a worker keeps in its first-level cache while it walks the tokens.
const TILE_BYTES: usize = 16 << 10;

/// Rows whose results are computed before they are stored.
const TILE_ROWS: usize = 64;

/// Rows that kernels finish together; tiles are so many or a multiple.
const ROWS_AT_ONCE: usize = 4;

/// Tokens from which on expanding weights for all of them is faster than a product for each.
const MIN_GEMM_TOKENS: usize = 4;

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

/// What products need beside their inputs and outputs, kept between calls so that a token allocates nothing.
#[derive(Debug)]
pub struct ActivationBuf {
    isa: Isa,
    /// One a worker, which nobody else locks.
    workers: Vec<Mutex<WorkerBuf>>,
    /// The input of many tokens.
    tiles: Vec<Line>,
}

/// What one worker needs for itself.
#[derive(Debug, Default)]
pub(crate) struct WorkerBuf {
    pub(crate) input: InputRows,
    /// Expanded weights.
    pub(crate) panels: Vec<Line>,
}

impl ActivationBuf {
    /// An empty buffer, filled with the instructions of `isa`.
    pub fn new(isa: Isa) -> Self {
        ActivationBuf { isa, workers: Vec::new(), tiles: Vec::new() }
    }

    /// Makes room for inputs of `n_rows` rows of `row_len` values on `n_threads` threads, so that calls up
    /// to that size allocate nothing.
    pub fn reserve(&mut self, n_threads: usize, n_rows: usize, row_len: usize) {
        let (n_single, n_blocks) = (n_rows.min(MAX_SINGLE_TOKENS), row_len.div_ceil(Q8_LEN));
        let (n_tile_lines, n_panel_lines) = gemm_lines(self.isa, n_rows, n_blocks);
        grow(&mut self.tiles, n_tile_lines, Line::ZERO);
        self.workers.resize_with(n_threads.max(self.workers.len()), Mutex::default);
        for worker in &mut self.workers {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.input.reserve(self.isa, n_single, row_len);
            grow(&mut worker.panels, n_panel_lines, Line::ZERO);
        }
    }

    /// Bytes that `reserve` allocates on `isa`.
    pub fn reserved_bytes(isa: Isa, n_threads: usize, n_rows: usize, row_len: usize) -> u64 {
        let (n_single, n_blocks) = (n_rows.min(MAX_SINGLE_TOKENS), row_len.div_ceil(Q8_LEN));
        let (n_tile_lines, n_panel_lines) = gemm_lines(isa, n_rows, n_blocks);
        let worker = InputRows::reserved_bytes(isa, n_single, row_len) + n_panel_lines * size_of::<Line>();
        (n_tile_lines * size_of::<Line>() + n_threads * worker) as u64
    }
}

/// Tokens that meet the weights one row at a time in a call, or are taken together where a type has no other way.
const MAX_SINGLE_TOKENS: usize = MIN_GEMM_TOKENS - 1;

/// Lines of tiles in all, and of panels for each worker.
fn gemm_lines(isa: Isa, n_tokens: usize, n_blocks: usize) -> (usize, usize) {
    let tiles = n_tokens >= MIN_GEMM_TOKENS && registry::ops(GgmlType::Q8_0, isa).gemm.is_some();
    if tiles { gemm::n_lines(n_tokens, n_blocks) } else { (0, 0) }
}

/// Multiplies each job's matrix with the `n_tokens` rows of `input`, which are made once.
///
/// # Panics
/// If `input` is not `n_tokens` rows of every job's row length, or a job's output is shorter than that many
/// rows.
pub fn matmul(
    pool: &ThreadPool,
    jobs: &mut [MatmulJob<'_>],
    input: &Input<'_>,
    n_tokens: usize,
    scratch: &mut ActivationBuf,
) {
    if n_tokens > 0 {
        Products::new(pool, input, n_tokens, scratch).multiply(jobs);
    }
}

/// Products with one input, of matrices that come one after another: what many tokens' input becomes for them
/// is made once.
pub struct Products<'a> {
    call: gemm::Call<'a>,
    input: &'a Input<'a>,
    row_len: usize,
    scratch: &'a mut ActivationBuf,
}

impl<'a> Products<'a> {
    /// For the `n_tokens` rows of `input`; `scratch` is made larger where it has not been
    /// [reserved](ActivationBuf::reserve) for this.
    ///
    /// # Panics
    /// If there are no rows, or `input` is not so many.
    pub fn new(
        pool: &'a ThreadPool,
        input: &'a Input<'a>,
        n_tokens: usize,
        scratch: &'a mut ActivationBuf,
    ) -> Self {
        let row_len = input.len() / n_tokens;
        assert_eq!(input.len(), n_tokens * row_len, "the input is n_tokens rows");
        scratch.reserve(pool.n_threads(), n_tokens, row_len);
        let isa = scratch.isa;
        let call = gemm::Call { pool, isa, n_tokens, n_blocks: row_len / Q8_LEN, made: None };
        Products { call, input, row_len, scratch }
    }

    /// Multiplies each job's matrix with the input.
    ///
    /// # Panics
    /// If the input's rows are not of a job's row length, or a job's output is shorter than as many rows.
    pub fn multiply(&mut self, jobs: &mut [MatmulJob<'_>]) {
        let Self { row_len, input, .. } = *self;
        let (n_tokens, jobs) = (self.call.n_tokens, &*jobs);
        for job in jobs {
            assert_eq!(row_len, job.weights.row_len, "the input's rows are of the matrix's length");
            assert!(job.has_room(n_tokens), "the output has a row for each token");
        }
        let ActivationBuf { workers, tiles, .. } = &mut *self.scratch;
        let in_tiles = |job: &MatmulJob<'_>| n_tokens >= MIN_GEMM_TOKENS && job.gemm().is_some();
        if jobs.iter().any(in_tiles) {
            self.call.multiply(jobs, input, tiles, workers);
        }
        if jobs.iter().all(in_tiles) {
            return;
        }
        let gemm::Call { pool, isa, .. } = self.call;
        let alone = || jobs.iter().filter(|job| !in_tiles(job));
        let forms = Forms {
            blocks: alone().any(|job| matches!(job.weights.ops.dot, Dot::Q8(_))),
            groups: alone().any(|job| matches!(job.weights.ops.dot, Dot::Q8Groups(_))),
        };
        for first in (0..n_tokens).step_by(MAX_SINGLE_TOKENS) {
            let tokens = first..(first + MAX_SINGLE_TOKENS).min(n_tokens);
            pool.run(&|worker| {
                let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
                buf.input.fill(isa, input, tokens.start, tokens.len(), row_len, forms);
                for job in alone() {
                    let rows = part(job.n_rows(), 1, worker, pool.n_threads());
                    // SAFETY: `part` gives each worker rows of its own, and `jobs` is borrowed exclusively.
                    unsafe { job.multiply(rows, tokens.clone(), &buf.input) };
                }
            });
        }
    }
}

impl MatmulJob<'_> {
    /// Computes the results of `rows` for each of `tokens`, whose inputs are the first of `input`.
    ///
    /// # Safety
    /// No other call at the same time may have any of `rows`.
    unsafe fn multiply(&self, rows: Range<usize>, tokens: Range<usize>, input: &InputRows) {
        let row_len = self.weights.row_len;
        let n_blocks = row_len / Q8_LEN;
        let n_groups = activations::n_groups(n_blocks);
        // SAFETY: the caller's: nobody else has these rows.
        unsafe {
            match self.weights.ops.dot {
                Dot::F32(dot) => self.multiply_rows(rows, tokens, &input.floats, row_len, one_by_one(dot)),
                Dot::Q8(dot) => self.multiply_rows(rows, tokens, &input.blocks, n_blocks, one_by_one(dot)),
                Dot::Q8Groups(dot_rows) => {
                    self.multiply_rows(rows, tokens, &input.groups, n_groups, dot_rows)
                }
            }
        }
    }

    /// [`multiply`](Self::multiply) with `x` in the form that `dot_rows` takes, `x_len` items a token.
    ///
    /// # Safety
    /// As there.
    unsafe fn multiply_rows<X>(
        &self,
        rows: Range<usize>,
        tokens: Range<usize>,
        x: &[X],
        x_len: usize,
        dot_rows: impl Fn(&[u8], &[X], &mut [f32]),
    ) {
        let n_rows = TILE_BYTES / self.row_bytes() / ROWS_AT_ONCE * ROWS_AT_ONCE;
        let n_rows = n_rows.clamp(ROWS_AT_ONCE, TILE_ROWS);
        let mut results = [0.0; TILE_ROWS];
        for start in rows.clone().step_by(n_rows) {
            let tile = start..(start + n_rows).min(rows.end);
            for (token, x) in tokens.clone().zip(x.chunks_exact(x_len)) {
                let results = &mut results[..tile.len()];
                dot_rows(self.rows(tile.clone()), x, results);
                // SAFETY: the caller's: nobody else has these rows.
                unsafe { self.store(token, tile.clone(), results) };
            }
        }
    }
}

/// The products of several rows, from the product of one.
fn one_by_one<X>(dot: fn(&[u8], &[X]) -> f32) -> impl Fn(&[u8], &[X], &mut [f32]) {
    move |rows, x, out| {
        let n_rows = out.len();
        for (row, out) in rows.chunks_exact(rows.len() / n_rows).zip(out) {
            *out = dot(row, x);
        }
    }
}
