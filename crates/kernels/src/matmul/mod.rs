//! Matrices of weight rows times rows of activations.
//!
//! There are two ways, and the caller says which each token takes ([`Tokens`]).
//!
//! **GEMV**: weights are met one row at a time. Each worker takes one contiguous range of each matrix's rows and walks it
//! from start to end: one sequential stream a thread is what memory serves fastest. Several tokens share what is loaded
//! and unpacked, and the worker then takes the rows a tile at a time, so that a tile stays in the first-level cache while
//! all tokens meet it. Each result is the format's product of one whole row.
//!
//! **GEMM**: weights are expanded, and met in register tiles (`gemm`). Types that have no such way take the other.
//!
//! The bits of a result depend on its row, its token and the way alone: not on the number of threads, of rows, or of tokens
//! that take either way in the same call.

mod input;
mod job;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use metallic_gguf::GgmlType;

pub(crate) use self::input::Forms;
pub use self::input::Input;
pub(crate) use self::input::InputRows;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::job::Columns;
pub use self::job::MatmulJob;
use crate::activations::{self, Q8_LEN};
use crate::buffer::grow;
use crate::gemm::{self, Line};
use crate::isa::Isa;
use crate::pool::{ThreadPool, part};
use crate::registry::{self, Dot, Dots, QuantOps, TOKENS_AT_ONCE};

/// Weight bytes that a worker keeps in its first-level cache while it walks the tokens.
const TILE_BYTES: usize = 16 << 10;

/// Rows whose results are computed before they are stored.
const TILE_ROWS: usize = 64;

/// Rows that kernels finish together; tiles are so many or a multiple.
const ROWS_AT_ONCE: usize = 4;

/// Tokens whose inputs are made for GEMV at a time.
const GEMV_TOKENS: usize = 32;

/// Tokens whose inputs each worker makes for itself: that is sooner done than waiting for another.
const OWN_TOKENS: usize = 3;

/// How many of an input's rows go which way: first those of GEMV, then those of GEMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Those that meet one weight row at a time.
    pub gemv: usize,
    /// Those that meet expanded weights, where the type has that way.
    pub gemm: usize,
}

impl Tokens {
    /// Rows of the input.
    pub fn count(self) -> usize {
        self.gemv + self.gemm
    }
}

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
    /// The input of more tokens than each worker makes for itself.
    rows: InputRows,
    /// The input of GEMM.
    tiles: Vec<Line>,
}

/// What one worker needs for itself.
#[derive(Debug, Default)]
pub(crate) struct WorkerBuf {
    pub(crate) input: InputRows,
    /// Expanded weights.
    pub(crate) panels: Vec<Line>,
    /// Products that are not whole yet.
    pub(crate) sums: Vec<Line>,
}

impl ActivationBuf {
    /// An empty buffer, filled with the instructions of `isa`.
    pub fn new(isa: Isa) -> Self {
        ActivationBuf { isa, workers: Vec::new(), rows: InputRows::default(), tiles: Vec::new() }
    }

    /// Makes room for inputs of `n_rows` rows of `row_len` values on `n_threads` threads, so that calls up
    /// to that size allocate nothing.
    pub fn reserve(&mut self, n_threads: usize, n_rows: usize, row_len: usize) {
        let (n_own, n_shared) = gemv_rows(n_rows);
        let lines = gemm_lines(self.isa, n_rows, row_len.div_ceil(Q8_LEN));
        self.rows.reserve(self.isa, n_shared, row_len);
        grow(&mut self.tiles, lines.tiles, Line::ZERO);
        self.workers.resize_with(n_threads.max(self.workers.len()), Mutex::default);
        for worker in &mut self.workers {
            let worker = worker.get_mut().unwrap_or_else(PoisonError::into_inner);
            worker.input.reserve(self.isa, n_own, row_len);
            grow(&mut worker.panels, lines.panels, Line::ZERO);
            grow(&mut worker.sums, lines.sums, Line::ZERO);
        }
    }

    /// Bytes that `reserve` allocates on `isa`.
    pub fn reserved_bytes(isa: Isa, n_threads: usize, n_rows: usize, row_len: usize) -> u64 {
        let (n_own, n_shared) = gemv_rows(n_rows);
        let lines = gemm_lines(isa, n_rows, row_len.div_ceil(Q8_LEN));
        let bytes =
            |n_rows, n_lines| InputRows::reserved_bytes(isa, n_rows, row_len) + n_lines * size_of::<Line>();
        let (worker, shared) = (bytes(n_own, lines.panels + lines.sums), bytes(n_shared, lines.tiles));
        (shared + n_threads * worker) as u64
    }
}

/// Rows of input that each worker makes, and that all make together, for GEMV of up to `n_rows`.
fn gemv_rows(n_rows: usize) -> (usize, usize) {
    (n_rows.min(OWN_TOKENS), if n_rows > OWN_TOKENS { n_rows.min(GEMV_TOKENS) } else { 0 })
}

/// What GEMM needs.
fn gemm_lines(isa: Isa, n_tokens: usize, n_blocks: usize) -> gemm::Lines {
    let tiles = n_tokens > 0 && registry::ops(GgmlType::Q8_0, isa).gemm.is_some();
    if tiles { gemm::Lines::new(isa, n_tokens, n_blocks) } else { gemm::Lines::default() }
}

/// Multiplies each job's matrix with the rows of `input`, which are made once.
///
/// # Panics
/// If `input` is not as many rows as there are `tokens`, of every job's row length, or a job's output is shorter than that
/// many rows.
pub fn matmul(
    pool: &ThreadPool,
    jobs: &mut [MatmulJob<'_>],
    input: &Input<'_>,
    tokens: Tokens,
    scratch: &mut ActivationBuf,
) {
    if tokens.count() > 0 {
        Products::new(pool, input, tokens, scratch).multiply(jobs);
    }
}

/// Products with one input, of matrices that come one after another: what many tokens' input becomes for them
/// is made once.
pub struct Products<'a> {
    call: gemm::Call<'a>,
    input: &'a Input<'a>,
    row_len: usize,
    /// What the rows that all workers made together hold: which tokens, in which forms.
    made: Option<(Range<usize>, Forms)>,
    scratch: &'a mut ActivationBuf,
}

impl<'a> Products<'a> {
    /// For the rows of `input`; `scratch` is made larger where it has not been [reserved](ActivationBuf::reserve) for
    /// this.
    ///
    /// # Panics
    /// If there are no rows, or `input` is not so many.
    pub fn new(
        pool: &'a ThreadPool,
        input: &'a Input<'a>,
        tokens: Tokens,
        scratch: &'a mut ActivationBuf,
    ) -> Self {
        let n_tokens = tokens.count();
        let row_len = input.len() / n_tokens;
        assert_eq!(input.len(), n_tokens * row_len, "the input is a row for each token");
        scratch.reserve(pool.n_threads(), n_tokens, row_len);
        let isa = scratch.isa;
        let in_tiles = tokens.gemv..n_tokens;
        let call = gemm::Call { pool, isa, tokens: in_tiles, n_blocks: row_len / Q8_LEN, made: None };
        Products { call, input, row_len, made: None, scratch }
    }

    /// Multiplies each job's matrix with the input.
    ///
    /// # Panics
    /// If the input's rows are not of a job's row length, or a job's output is shorter than as many rows.
    pub fn multiply(&mut self, jobs: &mut [MatmulJob<'_>]) {
        let Self { row_len, input, .. } = *self;
        let (Range { start: gemv, end: n_tokens }, jobs) = (self.call.tokens.clone(), &*jobs);
        for job in jobs {
            assert_eq!(row_len, job.weights.row_len, "the input's rows are of the matrix's length");
            assert!(job.has_room(n_tokens), "the output has a row for each token");
        }
        let ActivationBuf { workers, rows, tiles, .. } = &mut *self.scratch;
        if gemv < n_tokens {
            self.call.multiply(jobs, input, tiles, workers);
        }
        let gemm::Call { pool, isa, .. } = self.call;
        let n_gemv = |job: &MatmulJob<'_>| if job.gemm().is_some() { gemv } else { n_tokens };
        let most = jobs.iter().map(n_gemv).max().unwrap_or(0);
        for first in (0..most).step_by(GEMV_TOKENS) {
            let end = most.min(first + GEMV_TOKENS);
            let tokens = first..end;
            let forms = Forms::of(jobs.iter().filter(|job| n_gemv(job) > first));
            let run = |worker: usize, input: &InputRows| {
                for job in jobs.iter().filter(|job| n_gemv(job) > first) {
                    let rows = part(job.n_rows(), 1, worker, pool.n_threads());
                    let tokens = first..n_gemv(job).min(end);
                    // SAFETY: `part` gives each worker rows of its own, and `jobs` is borrowed exclusively.
                    unsafe { job.multiply(rows, tokens, input) };
                }
            };
            if tokens.len() > OWN_TOKENS {
                let wanted = Some((tokens.clone(), forms));
                if self.made != wanted {
                    rows.fill_together(pool, isa, input, tokens, row_len, forms);
                    self.made = wanted;
                }
                let rows = &*rows;
                pool.run(&|worker| run(worker, rows));
            } else {
                pool.run(&|worker| {
                    let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
                    buf.input.fill(isa, input, tokens.clone(), row_len, forms);
                    run(worker, &buf.input);
                });
            }
        }
    }
}

impl Forms {
    /// Those that the products of `jobs` need.
    fn of<'j, 'a: 'j>(jobs: impl Iterator<Item = &'j MatmulJob<'a>>) -> Self {
        jobs.fold(Forms::default(), |forms, job| Forms {
            blocks: forms.blocks || matches!(job.weights.ops.dot, Dot::Q8(_)),
            groups: forms.groups || matches!(job.weights.ops.dot, Dot::Q8Groups(_)),
        })
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
                Dot::F32(dots) => self.multiply_rows(rows, tokens, &input.floats, row_len, dots),
                Dot::Q8(dots) => self.multiply_rows(rows, tokens, &input.blocks, n_blocks, dots),
                Dot::Q8Groups(dots) => self.multiply_rows(rows, tokens, &input.groups, n_groups, dots),
            }
        }
    }

    /// [`multiply`](Self::multiply) with `x` in the form that `dots` takes, `x_len` items a token.
    ///
    /// # Safety
    /// As there.
    unsafe fn multiply_rows<X>(
        &self,
        rows: Range<usize>,
        tokens: Range<usize>,
        x: &[X],
        x_len: usize,
        dots: Dots<X>,
    ) {
        let n_rows = TILE_BYTES / self.row_bytes() / ROWS_AT_ONCE * ROWS_AT_ONCE;
        let n_rows = n_rows.clamp(ROWS_AT_ONCE, TILE_ROWS);
        let mut results = [0.0; TILE_ROWS * TOKENS_AT_ONCE];
        for start in rows.clone().step_by(n_rows) {
            let tile = start..(start + n_rows).min(rows.end);
            for first in tokens.clone().step_by(TOKENS_AT_ONCE) {
                let few = first..tokens.end.min(first + TOKENS_AT_ONCE);
                let x = &x[(first - tokens.start) * x_len..][..few.len() * x_len];
                let results = &mut results[..few.len() * tile.len()];
                dots(self.rows(tile.clone()), x, few.len(), results);
                for (token, results) in few.zip(results.chunks_exact_mut(tile.len())) {
                    // SAFETY: the caller's: nobody else has these rows.
                    unsafe { self.store(token, tile.clone(), results) };
                }
            }
        }
    }
}
