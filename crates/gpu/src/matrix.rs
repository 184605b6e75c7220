//! Matrices of weights: their rows as a file has them, in the device's memory, in as few buffers as it can bind, or in main
//! memory, from where they are swapped in a chunk at a time.

use std::ops::Range;
use std::sync::Arc;

use metallic::GgmlType;
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};

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
    swapped: Option<SwappedRows>,
}

/// The rows of a matrix that have no place on the device: all after those that have.
#[derive(Clone)]
struct SwappedRows {
    first: usize,
    bytes: SharedBytes,
    row_bytes: usize,
    /// Rows that are brought in at a time.
    in_chunk: usize,
}

/// Consecutive rows of a matrix in a buffer of their own.
struct RowsInBuffer {
    rows: Range<usize>,
    buffer: GpuBuffer,
}

/// Those rows of a matrix that lie in one buffer, or will.
pub(crate) struct PartOfMatrix<'a> {
    pub(crate) place: Place<'a>,
    /// Place of the first in the buffer, in rows.
    pub(crate) first_in_buffer: usize,
    /// Their numbers in the matrix.
    pub(crate) rows: Range<usize>,
}

/// Where rows are.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// On the device.
    Buffer(&'a GpuBuffer),
    /// In main memory: they are to be brought to a slot.
    Memory(&'a [u8]),
}

impl GpuMatrix {
    /// Uploads the first `n_resident` rows of a matrix. The others are swapped in, up to `chunk_bytes` at a time.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`], before anything is allocated; no memory.
    pub(crate) fn new(
        data: &MatrixData,
        n_resident: usize,
        chunk_bytes: usize,
        vram: &Vram,
        uploads: &mut Uploads,
    ) -> Result<Self> {
        let MatrixData { ggml_type, row_len, n_rows, bytes } = data;
        let decoder =
            kernels::decoder_of(*ggml_type).ok_or(Error::UnsupportedType { ggml_type: *ggml_type })?;
        let MatrixBytes { memory: Some(bytes), file: None } = bytes else {
            return Err(Error::unsupported("a product with weights that are streamed"));
        };
        let row_bytes = bytes.len() / n_rows;
        let max_bytes = vram.device.max_binding_bytes().min(MAX_PART_BYTES) as usize;
        let parts = divide(n_resident, row_bytes, max_bytes)?.into_iter().map(|rows| {
            let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
            let buffer = vram.bytes("weights", bytes.len() as u64)?;
            uploads.write(bytes, &buffer, 0)?;
            Ok(RowsInBuffer { rows, buffer })
        });
        let parts = parts.collect::<Result<Arc<[_]>>>()?;
        let swapped = (n_resident < *n_rows).then(|| SwappedRows {
            first: n_resident,
            bytes: bytes.slice(n_resident * row_bytes..bytes.len()),
            row_bytes,
            in_chunk: (chunk_bytes / row_bytes).max(1),
        });
        Ok(Self { decoder, ggml_type: *ggml_type, row_len: *row_len, rows: 0..*n_rows, parts, swapped })
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

    /// Its rows, buffer by buffer, and then those that are swapped in, chunk by chunk.
    pub(crate) fn parts(&self) -> impl Iterator<Item = PartOfMatrix<'_>> {
        let Range { start, end } = self.rows;
        let of_matrix = move |rows: &Range<usize>| rows.start - start..rows.end - start;
        let here = self.parts.iter().filter_map(move |part| {
            let rows = start.max(part.rows.start)..end.min(part.rows.end);
            (!rows.is_empty()).then(|| PartOfMatrix {
                place: Place::Buffer(&part.buffer),
                first_in_buffer: rows.start - part.rows.start,
                rows: of_matrix(&rows),
            })
        });
        let elsewhere = self.swapped.iter().flat_map(move |swapped| {
            swapped.chunks(start.max(swapped.first)..end).map(move |rows| PartOfMatrix {
                place: Place::Memory(swapped.of(&rows)),
                first_in_buffer: 0,
                rows: of_matrix(&rows),
            })
        });
        here.chain(elsewhere)
    }
}

impl SwappedRows {
    /// Rows that are brought in together.
    fn chunks(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let in_chunk = self.in_chunk;
        rows.clone().step_by(in_chunk).map(move |first| first..rows.end.min(first + in_chunk))
    }

    /// Their bytes.
    fn of(&self, rows: &Range<usize>) -> &[u8] {
        &self.bytes[(rows.start - self.first) * self.row_bytes..(rows.end - self.first) * self.row_bytes]
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
