//! Tensors: what the directory says of each, proved, and views of their bytes.

use std::fmt;
use std::ops::Range;

use crate::cursor::ByteOrder;
use crate::error::{Error, Result};
use crate::ggml_type::GgmlType;

/// The most dimensions of a tensor, as the format has it.
pub const MAX_DIMS: usize = 4;

/// The longest tensor name. The format says 64 bytes and ggml's default build takes 63, but image models
/// written by builds with a larger limit (stable-diffusion.cpp: 127) are in circulation.
pub const MAX_TENSOR_NAME_BYTES: u64 = 127;

/// A tensor's dimensions, proved: at most [`MAX_DIMS`], rows of whole blocks, and sizes that fit 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) ggml_type: GgmlType,
    dims: [u64; MAX_DIMS],
    n_dims: u8,
    n_elements: u64,
    pub(crate) n_bytes: u64,
}

impl Geometry {
    pub(crate) fn new(tensor: &str, ggml_type: GgmlType, shape: &[u64]) -> Result<Self> {
        let name = || tensor.to_owned();
        let overflow = || Error::ShapeOverflow { tensor: name(), shape: shape.to_vec() };
        let mut dims = [1; MAX_DIMS];
        let (Some(used), Ok(n_dims)) = (dims.get_mut(..shape.len()), u8::try_from(shape.len())) else {
            return Err(Error::TooManyDims {
                tensor: name(),
                n_dims: shape.len() as u64,
                limit: MAX_DIMS as u64,
            });
        };
        used.copy_from_slice(shape);
        // Zero is skipped, so that it can't hide dimensions whose product wraps in another order.
        let product = |dims: &[u64]| {
            dims.iter().filter(|&&dim| dim != 0).try_fold(1_u64, |product, &dim| product.checked_mul(dim))
        };
        let n_elements = product(&dims).ok_or_else(overflow)?;
        let row_len = dims[0];
        let block_len = ggml_type.block_len() as u64;
        if !row_len.is_multiple_of(block_len) {
            return Err(Error::PartialBlock { tensor: name(), ggml_type, row_len, block_len });
        }
        let n_bytes = ggml_type
            .row_bytes(row_len)
            .zip(product(&dims[1..]))
            .and_then(|(row_bytes, n_rows)| row_bytes.checked_mul(n_rows))
            .ok_or_else(overflow)?;
        let (n_elements, n_bytes) = if dims.contains(&0) { (0, 0) } else { (n_elements, n_bytes) };
        Ok(Geometry { ggml_type, dims, n_dims, n_elements, n_bytes })
    }

    pub(crate) fn shape(&self) -> &[u64] {
        self.dims.get(..self.n_dims.into()).unwrap_or_default()
    }
}

/// One entry of the directory, without the bytes.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    /// Where the name is in its file.
    pub(crate) name: Range<usize>,
    pub(crate) geometry: Geometry,
    pub(crate) shard: usize,
    /// Where the data are in the file.
    pub(crate) data: Range<usize>,
}

impl TensorInfo {
    pub(crate) fn name<'a>(&self, file: &'a [u8]) -> &'a str {
        text(file, &self.name)
    }

    pub(crate) fn view<'a>(&self, file: &'a [u8], byte_order: ByteOrder) -> Tensor<'a> {
        Tensor {
            name: self.name(file),
            geometry: self.geometry,
            shard: self.shard,
            file_offset: self.data.start as u64,
            data: file.get(self.data.clone()).unwrap_or_default(),
            byte_order,
        }
    }
}

/// The text at a range that was found to hold text; empty only if the bytes changed since.
pub(crate) fn text<'a>(file: &'a [u8], range: &Range<usize>) -> &'a str {
    file.get(range.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// A tensor of a validated file. A view: copying it copies no weights.
///
/// [`data`](Tensor::data) is exactly [`n_rows`](Tensor::n_rows) rows of `row_len` elements, each row a whole
/// number of the type's blocks.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    name: &'a str,
    geometry: Geometry,
    shard: usize,
    file_offset: u64,
    data: &'a [u8],
    byte_order: ByteOrder,
}

impl<'a> Tensor<'a> {
    /// The name, such as `blk.0.attn_q.weight`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The type of the elements.
    pub fn ggml_type(&self) -> GgmlType {
        self.geometry.ggml_type
    }

    /// The dimensions, the fastest first: the reverse of a PyTorch shape. Empty for a scalar.
    pub fn shape(&self) -> &[u64] {
        self.geometry.shape()
    }

    /// The number of elements: 1 for a scalar, 0 if a dimension is 0.
    pub fn n_elements(&self) -> u64 {
        self.geometry.n_elements
    }

    /// Elements in a row, the first dimension: 1 for a scalar.
    pub fn row_len(&self) -> u64 {
        self.geometry.dims[0]
    }

    /// The number of rows, the product of all dimensions but the first; 0 if the tensor has no elements.
    pub fn n_rows(&self) -> u64 {
        self.geometry.n_elements.checked_div(self.row_len()).unwrap_or(0)
    }

    /// The size of the data.
    pub fn n_bytes(&self) -> u64 {
        self.geometry.n_bytes
    }

    /// The data, in the file's byte order.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The number of the file that holds the data, from 0; 0 unless the model is split.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Where the data start, in bytes from the start of their file: a multiple of the file's alignment (a
    /// tensor of zero size may be at the very end instead), with all data inside the file.
    pub fn file_offset(&self) -> u64 {
        self.file_offset
    }

    /// The byte order of numbers inside the data.
    pub fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("name", &self.name)
            .field("ggml_type", &self.ggml_type())
            .field("shape", &self.shape())
            .field("shard", &self.shard)
            .field("file_offset", &self.file_offset)
            .field("n_bytes", &self.n_bytes())
            .finish()
    }
}
