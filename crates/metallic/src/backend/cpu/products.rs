//! Matrices, and products with them wherever their rows are: in memory, or swapped in a chunk at a time.

use std::ops::Range;

use metallic_kernels::matmul::{self, Matrix, Products, Tokens};
use metallic_kernels::pool::ThreadPool;
use metallic_kernels::{Isa, QuantOps, registry};
use smallvec::SmallVec;

use super::Cpu;
use crate::backend::MatmulJob;
use crate::error::Result;
use crate::memory::{ExpertCache, MatrixBytes, MatrixData, SharedBytes, StreamedRows, WeightStream};

/// What brings in the weights that are not in memory.
pub(super) struct Stream {
    pub(super) weights: WeightStream,
    /// Experts that have been brought in and stay.
    pub(super) experts: ExpertCache,
}

/// A matrix in memory, in a file, or in both.
#[derive(Clone)]
pub struct CpuMatrix {
    ops: QuantOps,
    pub(super) row_len: usize,
    n_rows: usize,
    /// Leading rows.
    resident: Option<SharedBytes>,
    /// The rows after those.
    pub(super) streamed: Option<StreamedRows>,
}

impl CpuMatrix {
    /// A matrix for the kernels of `isa`. What is in a file is read in chunks of at most `chunk_bytes`, or of a row.
    pub(super) fn new(data: MatrixData, isa: Isa, chunk_bytes: usize) -> Self {
        let MatrixData { ggml_type, row_len, n_rows, bytes: MatrixBytes { memory, file } } = data;
        let ops = registry::ops(ggml_type, isa);
        let matrix = Self { ops, row_len, n_rows, resident: memory, streamed: None };
        let n_streamed = n_rows - matrix.n_resident();
        let streamed = file.map(|range| StreamedRows::new(range, n_streamed, chunk_bytes));
        Self { streamed, ..matrix }
    }

    /// Some of its rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> Self {
        let n_resident = self.n_resident();
        let resident = rows.start.min(n_resident)..rows.end.min(n_resident);
        let streamed = rows.start - resident.start..rows.end - resident.end;
        let slice = |bytes: &SharedBytes| {
            let row_bytes = bytes.len() / n_resident;
            bytes.slice(resident.start * row_bytes..resident.end * row_bytes)
        };
        Self {
            n_rows: rows.len(),
            resident: self.resident.as_ref().filter(|_| !resident.is_empty()).map(slice),
            streamed: self.streamed.filter(|_| !streamed.is_empty()).map(|rows| rows.rows(streamed)),
            ..*self
        }
    }

    /// Leading rows that are in memory.
    fn n_resident(&self) -> usize {
        self.resident.as_deref().map_or(0, |bytes| self.view(bytes).n_rows())
    }

    /// The bytes of leading rows that are in memory: of all, if this is an expert that stayed.
    fn bytes<'a>(&'a self, experts: Option<&'a ExpertCache>) -> &'a [u8] {
        let kept = self.streamed.and_then(|rows| experts?.get(rows.range));
        kept.or(self.resident.as_deref()).unwrap_or_default()
    }

    /// Rows of this matrix that lie in `bytes`.
    fn view<'a>(&self, bytes: &'a [u8]) -> Matrix<'a> {
        Matrix::new(self.ops, self.row_len, bytes)
    }
}

/// One product of a group that shares an input, as slices.
pub(super) struct Job<'a> {
    pub(super) matrix: &'a CpuMatrix,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) accumulate: bool,
    pub(super) out: &'a mut [f32],
}

impl<'a> Job<'a> {
    pub(super) fn of(job: &'a mut MatmulJob<'_, Cpu>) -> Self {
        let MatmulJob { matrix, bias, accumulate, out } = job;
        Self { matrix, bias: bias.map(|bias| &bias[..]), accumulate: *accumulate, out }
    }
}

impl Cpu {
    /// Decodes a row, which is read by itself if it is not in memory.
    pub(super) fn decode_row(&mut self, matrix: &CpuMatrix, row: usize, out: &mut [f32]) -> Result<()> {
        if let Some(row) = row.checked_sub(matrix.n_resident()) {
            let (Some(rows), Some(stream)) = (matrix.streamed, &mut self.stream) else {
                unreachable!("{NO_STREAM}")
            };
            matrix.view(stream.weights.row(rows.rows(row..row + 1).range)?).decode_row(0, out);
        } else {
            matrix.view(matrix.bytes(None)).decode_row(row, out);
        }
        Ok(())
    }

    /// Products of the rows of an input with matrices.
    pub(super) fn multiply(
        &mut self,
        input: &matmul::Input<'_>,
        tokens: Tokens,
        jobs: &mut [Job<'_>],
    ) -> Result<()> {
        let n_rows = tokens.count();
        let mut products = Products::new(&self.pool, input, tokens, &mut self.activations);
        // What is in memory first: meanwhile the rest is being read.
        let experts = self.stream.as_ref().map(|stream| &stream.experts);
        let (mut here, mut n_here) = (SmallVec::<[_; 4]>::new(), SmallVec::<[usize; 4]>::new());
        for job in &mut *jobs {
            let bytes = job.matrix.bytes(experts);
            let rows = 0..job.matrix.view(bytes).n_rows();
            n_here.push(rows.end);
            if !rows.is_empty() {
                here.push(chunk_product(job, n_rows, bytes, rows));
            }
        }
        products.multiply(&mut here);
        drop(here);
        let missing = jobs.iter_mut().zip(n_here).filter(|(job, n_here)| *n_here < job.matrix.n_rows);
        for (job, n_here) in missing {
            let (Some(rows), Some(stream)) = (job.matrix.streamed, &mut self.stream) else {
                unreachable!("{NO_STREAM}")
            };
            for chunk in rows.chunks() {
                let range = rows.rows(chunk.clone()).range;
                let slot = stream.weights.next(range)?;
                let chunk = n_here + chunk.start..n_here + chunk.end;
                products.multiply(&mut [chunk_product(job, n_rows, slot.chunk(), chunk)]);
                stream.experts.keep(range, |place| copy(&self.pool, slot.chunk(), place));
                stream.weights.give_back(slot);
            }
        }
        Ok(())
    }
}

/// A matrix is streamed only where the plan says so, and then the loader has made a stream.
const NO_STREAM: &str = "a streamed matrix on a backend without a stream";

/// The part of a job that some rows of its matrix make, which lie in `bytes`.
fn chunk_product<'a>(
    job: &'a mut Job<'_>,
    n_rows: usize,
    bytes: &'a [u8],
    chunk: Range<usize>,
) -> matmul::MatmulJob<'a> {
    let stride = job.matrix.n_rows;
    let out = &mut job.out[..n_rows * stride];
    let mut product = matmul::MatmulJob::chunk(job.matrix.view(bytes), out, stride, chunk.start);
    if let Some(bias) = job.bias {
        product = product.with_bias(&bias[chunk]);
    }
    if job.accumulate { product.accumulating() } else { product }
}

/// Copies on all threads: one alone would keep the others, and soon the disk, waiting.
fn copy(pool: &ThreadPool, from: &[u8], to: &mut [u8]) {
    pool.split_rows(to, 1, &|first, to: &mut [u8]| to.copy_from_slice(&from[first..][..to.len()]));
}
