//! What a matrix of weights is made from.

use metallic_gguf::GgmlType;

use super::reader::FileRange;
use super::source::SharedBytes;

/// A matrix as it lies in a file: `n_rows` rows of `row_len` weights of one type, little-endian.
#[derive(Clone, Debug)]
pub struct MatrixData {
    /// Type of the weights.
    pub ggml_type: GgmlType,
    /// Weights in a row: the width of the input.
    pub row_len: usize,
    /// Rows: the width of the output.
    pub n_rows: usize,
    /// The rows, one after another.
    pub bytes: MatrixBytes,
}

/// Where the bytes of a matrix are: leading rows in memory, the others in a file. Either may have all.
#[derive(Clone, Debug)]
pub struct MatrixBytes {
    /// In memory, to be used there.
    pub memory: Option<SharedBytes>,
    /// In a file, to be swapped in a chunk at a time.
    pub file: Option<FileRange>,
}

impl MatrixBytes {
    /// All in memory.
    pub fn in_memory(bytes: SharedBytes) -> Self {
        Self { memory: Some(bytes), file: None }
    }
}
