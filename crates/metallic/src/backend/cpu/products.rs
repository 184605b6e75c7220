//! Matrices, and products with them wherever their rows are: in memory, or swapped in a chunk at a time.

use std::ops::Range;

use metallic_kernels::matmul::{self, Matrix, Products};
use metallic_kernels::pool::ThreadPool;
use metallic_kernels::{Isa, QuantOps, registry};
use smallvec::SmallVec;

use super::Cpu;
use crate::backend::{MatmulJob, MatrixBytes, MatrixData};
use crate::error::Result;
use crate::memory::{ExpertCache, SharedBytes, StreamedRows, WeightStream};

/// What brings in the weights that are not in memory.
pub(super) struct Stream {
    pub(super) weights: WeightStream,
    pub(super) chunk_bytes: usize,
    /// Experts that have been brought in and stay.
    pub(super) experts: ExpertCache,
}

/// A matrix in memory or in a file.
#[derive(Clone)]
pub struct CpuMatrix {
    ops: QuantOps,
    pub(super) row_len: usize,
    n_rows: usize,
    weights: Weights,
}

/// Where the rows of a matrix are.
#[derive(Clone)]
enum Weights {
    Resident(SharedBytes),
    Streamed(StreamedRows),
}

impl CpuMatrix {
    /// A matrix for the kernels of `isa`. What is in a file is read in chunks of at most `chunk_bytes`, or of a row.
    pub(super) fn new(data: MatrixData, isa: Isa, chunk_bytes: usize) -> Self {
        let MatrixData { ggml_type, row_len, n_rows, bytes } = data;
        let weights = match bytes {
            MatrixBytes::Memory(bytes) => Weights::Resident(bytes),
            MatrixBytes::File(range) => Weights::Streamed(StreamedRows::new(range, n_rows, chunk_bytes)),
        };
        Self { ops: registry::ops(ggml_type, isa), row_len, n_rows, weights }
    }

    /// Some of its rows.
    pub(super) fn rows(&self, rows: Range<usize>) -> Self {
        let n_rows = rows.len();
        let weights = match &self.weights {
            Weights::Resident(bytes) => {
                let row_bytes = bytes.len() / self.n_rows;
                Weights::Resident(bytes.slice(rows.start * row_bytes..rows.end * row_bytes))
            }
            Weights::Streamed(streamed) => Weights::Streamed(streamed.rows(rows)),
        };
        Self { n_rows, weights, ..*self }
    }

    /// The rows that are swapped in.
    pub(super) fn streamed(&self) -> Option<&StreamedRows> {
        match &self.weights {
            Weights::Resident(_) => None,
            Weights::Streamed(rows) => Some(rows),
        }
    }

    /// All its rows, if they are in memory, perhaps as an expert that stayed.
    fn bytes<'a>(&'a self, experts: Option<&'a ExpertCache>) -> Option<&'a [u8]> {
        match &self.weights {
            Weights::Resident(bytes) => Some(bytes),
            Weights::Streamed(rows) => experts?.get(rows.range),
        }
    }

    /// Rows of this matrix that lie in `bytes`.
    fn view<'a>(&self, bytes: &'a [u8]) -> Matrix<'a> {
        Matrix::new(self.ops, self.row_len, bytes)
    }
}

impl Cpu {
    /// Decodes a row, which is read by itself if it is not in memory.
    pub(super) fn decode_row(&mut self, matrix: &CpuMatrix, row: usize, out: &mut [f32]) -> Result<()> {
        match (&matrix.weights, &mut self.stream) {
            (Weights::Resident(bytes), _) => matrix.view(bytes).decode_row(row, out),
            (Weights::Streamed(rows), Some(stream)) => {
                matrix.view(stream.weights.row(rows.rows(row..row + 1).range)?).decode_row(0, out);
            }
            (Weights::Streamed(_), None) => unreachable!("{NO_STREAM}"),
        }
        Ok(())
    }

    /// Products of `n_rows` rows of an input with matrices.
    pub(super) fn multiply(
        &mut self,
        input: &matmul::Input<'_>,
        n_rows: usize,
        jobs: &mut [MatmulJob<'_, Self>],
    ) -> Result<()> {
        let mut products = Products::new(&self.pool, input, n_rows, &mut self.activations);
        // What is in memory first: meanwhile the rest is being read.
        let experts = self.stream.as_ref().map(|stream| &stream.experts);
        let (mut here, mut missing) = (SmallVec::<[_; 4]>::new(), SmallVec::<[_; 4]>::new());
        for job in jobs {
            match job.matrix.bytes(experts) {
                Some(bytes) => here.push(chunk_product(job, n_rows, bytes, 0..job.matrix.n_rows)),
                None => missing.push(job),
            }
        }
        products.multiply(&mut here);
        drop(here);
        for job in missing {
            let Weights::Streamed(rows) = job.matrix.weights else { continue };
            let Some(stream) = &mut self.stream else { unreachable!("{NO_STREAM}") };
            for chunk in rows.chunks() {
                let range = rows.rows(chunk.clone()).range;
                let slot = stream.weights.next(range)?;
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
    job: &'a mut MatmulJob<'_, Cpu>,
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
