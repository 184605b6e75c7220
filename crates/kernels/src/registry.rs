//! From a tensor type and an instruction set to the functions that compute on its rows.

use metallic_gguf::GgmlType;

use crate::activations::{Q8Block, Q8Group};
use crate::gemm::Gemm;
use crate::isa::Isa;
use crate::quants;

/// Quantizes floats to a row: `(x, row)`.
pub type Encode = fn(&[f32], &mut [u8]);

/// Dot products of weight rows with one activation row.
#[derive(Clone, Copy, Debug)]
pub enum Dot {
    /// Against float activations: `(row, x)` with `x.len()` the row's length.
    F32(fn(&[u8], &[f32]) -> f32),
    /// Against 8-bit activations: `(row, x)` with `x.len()` the row's length / 32.
    Q8(fn(&[u8], &[Q8Block]) -> f32),
    /// Of several rows, against 8-bit activations in groups: `(rows, x, out)` with `out.len()` the number of
    /// rows and `x` the groups of one row. A result depends on its row alone, not on those beside it.
    Q8Groups(fn(&[u8], &[Q8Group], &mut [f32])),
}

/// What can be done with the rows of one type on one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct QuantOps {
    /// The type.
    pub ggml_type: GgmlType,
    /// The instruction set that `decode`, `encode` and `dot` are written for or, as plain loops, compiled for.
    pub isa: Isa,
    /// Decodes a row of little-endian blocks to floats: `(row, out)`.
    pub decode: fn(&[u8], &mut [f32]),
    /// Quantizes floats to a row, where this crate can: `(x, row)`.
    pub encode: Option<Encode>,
    /// Swaps a row between big- and little-endian.
    pub swap_bytes: fn(&mut [u8]),
    /// Row × activations.
    pub dot: Dot,
    /// The way of many tokens, where there is one that is faster than `dot` for each.
    pub(crate) gemm: Option<Gemm>,
}

/// The functions for `ggml_type` on `isa`: kernels written for it, or else plain loops compiled for it.
pub fn ops(ggml_type: GgmlType, isa: Isa) -> QuantOps {
    quants::ops(ggml_type, isa)
}
