//! Matrices of weights in the device's memory: their rows as a file has them, in as few buffers as the device can bind.

use std::ops::Range;
use std::sync::Arc;

use metallic::GgmlType;
use metallic::memory::{MatrixBytes, MatrixData};

use crate::error::{Error, Result};
use crate::kernels::{self, Part};
use crate::memory::{GpuBuffer, Vram};
use crate::uploads::Uploads;

/// Bytes of a buffer of rows at most: kernels number them in 32 bits.
const MAX_PART_BYTES: u64 = 4 << 30;

/// A matrix, or some rows of one. Clones share the weights.
#[derive(Clone)]
pub struct GpuMatrix {
    pub(crate) decoder: &'static Part,
    ggml_type: GgmlType,
    row_len: usize,
    /// Those of `parts` that it has.
    rows: Range<usize>,
    parts: Arc<[RowsInBuffer]>,
}

/// Consecutive rows of a matrix in a buffer of their own.
struct RowsInBuffer {
    rows: Range<usize>,
    buffer: GpuBuffer,
}

/// Those rows of a matrix that lie in one buffer.
pub(crate) struct PartOfMatrix<'a> {
    pub(crate) buffer: &'a GpuBuffer,
    /// Place of the first in the buffer, in rows.
    pub(crate) first_in_buffer: usize,
    /// Their numbers in the matrix.
    pub(crate) rows: Range<usize>,
}

impl GpuMatrix {
    /// Uploads a matrix.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`], before anything is allocated; no memory.
    pub(crate) fn new(data: &MatrixData, vram: &Vram, uploads: &mut Uploads) -> Result<Self> {
        let MatrixData { ggml_type, row_len, n_rows, bytes } = data;
        let decoder =
            kernels::decoder_of(*ggml_type).ok_or(Error::UnsupportedType { ggml_type: *ggml_type })?;
        let MatrixBytes { memory: Some(bytes), file: None } = bytes else {
            return Err(Error::unsupported("a product with weights that are streamed"));
        };
        let row_bytes = bytes.len() / n_rows;
        let max_bytes = vram.device.max_binding_bytes().min(MAX_PART_BYTES) as usize;
        let parts = divide(*n_rows, row_bytes, max_bytes)?.into_iter().map(|rows| {
            let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
            let buffer = vram.bytes("weights", bytes.len() as u64)?;
            uploads.write(bytes, &buffer, 0)?;
            Ok(RowsInBuffer { rows, buffer })
        });
        let parts = parts.collect::<Result<Arc<[_]>>>()?;
        Ok(Self { decoder, ggml_type: *ggml_type, row_len: *row_len, rows: 0..*n_rows, parts })
    }

    /// Some of its rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.n_rows(), "rows of the matrix");
        let first = self.rows.start;
        Self { rows: first + rows.start..first + rows.end, ..self.clone() }
    }

    /// Rows: the width of a product.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Weights in a row: the width of an input.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Blocks in a row.
    pub(crate) fn n_blocks(&self) -> usize {
        self.row_len / self.ggml_type.block_len()
    }

    /// Its rows, buffer by buffer.
    pub(crate) fn parts(&self) -> impl Iterator<Item = PartOfMatrix<'_>> {
        self.parts.iter().filter_map(|part| {
            let rows = self.rows.start.max(part.rows.start)..self.rows.end.min(part.rows.end);
            (!rows.is_empty()).then(|| PartOfMatrix {
                buffer: &part.buffer,
                first_in_buffer: rows.start - part.rows.start,
                rows: rows.start - self.rows.start..rows.end - self.rows.start,
            })
        })
    }
}

/// Rows that go to a buffer each, of `max_bytes` at most.
///
/// # Errors
/// A row that is longer.
fn divide(n_rows: usize, row_bytes: usize, max_bytes: usize) -> Result<Vec<Range<usize>>> {
    let in_part = max_bytes / row_bytes.max(1);
    if in_part == 0 {
        let [bytes, max_bytes] = [row_bytes, max_bytes].map(|bytes| bytes as u64);
        return Err(Error::TooLarge { what: "a row of weights", bytes, max_bytes });
    }
    Ok((0..n_rows).step_by(in_part).map(|first| first..n_rows.min(first + in_part)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_divided_whole() {
        assert_eq!(divide(10, 100, 350).unwrap(), [0..3, 3..6, 6..9, 9..10]);
        assert_eq!(divide(3, 100, 1000).unwrap(), vec![0..3; 1]);
        assert!(matches!(divide(3, 100, 99), Err(Error::TooLarge { bytes: 100, .. })));
    }
}
