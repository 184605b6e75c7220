//! Matrices of weights: their rows as a file has them, in the device's memory, in as few buffers as it can bind; those that
//! it has no room for in main memory or in the file, from where they are swapped in a chunk at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metallic::GgmlType;
use metallic::memory::{FileRange, MatrixBytes, MatrixData, Places, SharedBytes, StreamedRows};

use crate::error::{Error, Result};
use crate::expert_cache::ExpertCache;
use crate::kernels::{self, Part};
use crate::memory::{GpuBuffer, Vram};
use crate::uploads::Uploads;

/// Bytes of a buffer of rows at most: kernels number them in 32 bits.
pub(crate) const MAX_PART_BYTES: u64 = 4 << 30;

/// Bytes that are uploaded at a time: so much of a map is in memory at once.
const PIECE_BYTES: usize = 4 << 20;

/// A matrix, or some rows of one. Clones share the weights.
#[derive(Clone)]
pub struct GpuMatrix {
    pub(crate) decoder: &'static Part,
    ggml_type: GgmlType,
    row_len: usize,
    /// Those of `parts` that it has.
    rows: Range<usize>,
    parts: Arc<[RowsInBuffer]>,
    in_memory: Option<RowsInMemory>,
    in_file: Option<RowsInFile>,
    /// Where experts stay, of a matrix whose experts are brought in once they are chosen.
    cache: Option<Arc<Mutex<ExpertCache>>>,
}

/// The rows of a matrix that have no place on the device, but in main memory.
#[derive(Clone)]
struct RowsInMemory {
    rows: Range<usize>,
    bytes: SharedBytes,
    row_bytes: usize,
    /// Rows that are brought in at a time.
    in_chunk: usize,
}

/// The rows of a matrix that have a place in the file alone: all after the others.
#[derive(Clone)]
struct RowsInFile {
    first: usize,
    rows: StreamedRows,
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
    /// In the file, from where they are to be brought to a slot.
    File(FileRange),
}

impl GpuMatrix {
    /// Uploads a matrix, to buffers of no more than `max_part_bytes`.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`], before anything is allocated; no memory.
    pub(crate) fn new(
        data: &MatrixData,
        vram: &Vram,
        uploads: &mut Uploads,
        max_part_bytes: u64,
    ) -> Result<Self> {
        let MatrixData { ggml_type, row_len, n_rows, bytes } = data;
        let decoder =
            kernels::decoder_of(*ggml_type).ok_or(Error::UnsupportedType { ggml_type: *ggml_type })?;
        let MatrixBytes { memory: Some(bytes), file: None } = bytes else {
            return Err(Error::unsupported("a matrix that is to stay on a device and is not in memory"));
        };
        let row_bytes = bytes.len() / (*n_rows).max(1);
        let parts = divide(*n_rows, row_bytes, max_part_bytes as usize)?.into_iter().map(|rows| {
            let of_part = rows.start * row_bytes..rows.end * row_bytes;
            let buffer = vram.bytes("weights", of_part.len() as u64)?;
            for (i, start) in of_part.clone().step_by(PIECE_BYTES).enumerate() {
                let piece = bytes.slice(start..of_part.end.min(start + PIECE_BYTES));
                uploads.write(&piece, &buffer, (i * PIECE_BYTES) as u64)?;
                piece.were_copied();
            }
            Ok(RowsInBuffer { rows, buffer })
        });
        let (parts, rows) = (parts.collect::<Result<_>>()?, 0..*n_rows);
        let (ggml_type, row_len) = (*ggml_type, *row_len);
        Ok(Self { decoder, ggml_type, row_len, rows, parts, in_memory: None, in_file: None, cache: None })
    }

    /// The same with `n_more` rows after them, which are swapped in, up to `chunk_bytes` at a time.
    pub(crate) fn with_more(self, n_more: usize, more: MatrixBytes, chunk_bytes: usize) -> Self {
        let MatrixBytes { memory, file } = more;
        let n_bytes = |bytes: &Option<SharedBytes>| bytes.as_deref().map_or(0, <[u8]>::len);
        let in_all = n_bytes(&memory) + file.map_or(0, |range| range.n_bytes);
        let row_bytes = in_all / n_more;
        let first = self.rows.end;
        let in_file = first + n_bytes(&memory) / row_bytes..first + n_more;
        let in_chunk = (chunk_bytes / row_bytes).max(1);
        let in_memory =
            memory.map(|bytes| RowsInMemory { rows: first..in_file.start, bytes, row_bytes, in_chunk });
        let streamed = file.map(|range| StreamedRows::new(range, in_file.len(), chunk_bytes));
        let rows = 0..in_file.end;
        let in_file = streamed.map(|rows| RowsInFile { first: in_file.start, rows });
        Self { rows, in_memory, in_file, ..self }
    }

    /// A matrix of experts without rows on the device but those of experts that have places, of which none is there yet. Others
    /// are brought in up to `chunk_bytes` at a time.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of_experts(
        data: MatrixData,
        places: Places,
        chunk_bytes: usize,
        vram: &Vram,
        uploads: &mut Uploads,
    ) -> Result<Self> {
        let MatrixData { n_rows, bytes, .. } = data;
        let n_bytes = bytes.memory.as_ref().map_or(0, |bytes| bytes.len())
            + bytes.file.map_or(0, |range| range.n_bytes);
        let cache = ExpertCache::new(places, n_rows, n_bytes as u64, vram)?;
        let none = MatrixBytes::in_memory(SharedBytes::new(Vec::new()));
        let without = Self::new(&MatrixData { n_rows: 0, bytes: none, ..data }, vram, uploads, u64::MAX)?;
        let cache = Some(Arc::new(Mutex::new(cache)));
        Ok(Self { cache, ..without.with_more(n_rows, bytes, chunk_bytes) })
    }

    /// Where its experts stay, if they are brought in once they are chosen.
    pub(crate) fn cache(&self) -> Option<MutexGuard<'_, ExpertCache>> {
        self.cache.as_ref().map(|cache| cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Some of its rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.n_rows(), "rows of the matrix");
        let first = self.rows.start;
        Self { rows: first + rows.start..first + rows.end, ..self.clone() }
    }

    /// Whether it is the same rows of the same weights.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts) && self.rows == other.rows
    }

    /// Rows: the width of a product.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Weights in a row: the width of an input.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    pub(crate) fn ggml_type(&self) -> GgmlType {
        self.ggml_type
    }

    /// Blocks in a row.
    pub(crate) fn n_blocks(&self) -> usize {
        self.row_len / self.ggml_type.block_len()
    }

    /// Its rows, buffer by buffer, and then those that are swapped in, chunk by chunk.
    pub(crate) fn parts(&self) -> impl Iterator<Item = PartOfMatrix<'_>> {
        let Range { start, end } = self.rows;
        let part = move |place, first_in_buffer, rows: Range<usize>| PartOfMatrix {
            place,
            first_in_buffer,
            rows: rows.start - start..rows.end - start,
        };
        let here = self.parts.iter().filter_map(move |of_buffer| {
            let rows = start.max(of_buffer.rows.start)..end.min(of_buffer.rows.end);
            let first = rows.start.saturating_sub(of_buffer.rows.start);
            (!rows.is_empty()).then(|| part(Place::Buffer(&of_buffer.buffer), first, rows))
        });
        let in_memory = self.in_memory.iter().flat_map(move |memory| {
            let rows = start.max(memory.rows.start)..end.min(memory.rows.end);
            let chunks = rows.clone().step_by(memory.in_chunk);
            let chunk = move |first: usize| first..rows.end.min(first + memory.in_chunk);
            chunks.map(chunk).map(move |rows| part(Place::Memory(memory.of(&rows)), 0, rows))
        });
        let in_file = self.rows_in_file().into_iter().flat_map(move |(first, streamed)| {
            let place = move |rows: &Range<usize>| Place::File(streamed.rows(rows.clone()).range());
            streamed.chunks().map(move |rows| part(place(&rows), 0, first + rows.start..first + rows.end))
        });
        here.chain(in_memory).chain(in_file)
    }

    /// Those of its rows that have a place in the file alone, and the number of the first.
    fn rows_in_file(&self) -> Option<(usize, StreamedRows)> {
        let RowsInFile { first, rows } = self.in_file.as_ref()?;
        let wanted = self.rows.start.max(*first)..self.rows.end;
        (!wanted.is_empty()).then(|| (wanted.start, rows.rows(wanted.start - first..wanted.end - first)))
    }

    /// Those of its rows that are read from the file.
    pub(crate) fn streamed(&self) -> Option<StreamedRows> {
        self.rows_in_file().map(|(_, rows)| rows)
    }
}

impl RowsInMemory {
    /// The bytes of some.
    fn of(&self, rows: &Range<usize>) -> &[u8] {
        let first = self.rows.start;
        &self.bytes[(rows.start - first) * self.row_bytes..(rows.end - first) * self.row_bytes]
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
