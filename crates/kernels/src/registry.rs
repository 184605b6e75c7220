//! From a tensor type and an instruction set to the functions that compute on its rows.

use metallic_gguf::GgmlType;

use crate::activations::{Q8Block, Q8Group};
use crate::gemm::Gemm;
use crate::isa::Isa;
use crate::quants;

/// Quantizes floats to a row: `(x, row)`.
pub type Encode = fn(&[f32], &mut [u8]);

/// Dot products of weight rows with activation rows, one for each of up to 8 tokens: `(rows, x, n_tokens, out)`. The tokens'
/// rows lie one after another, and the product of row `r` of `n_rows` with token `t` goes to `out[t * n_rows + r]`.
///
/// A product depends on its row and its token alone, not on those beside it: tokens share the loads and the unpacking of
/// weights, and each is summed as it is by itself.
pub type Dots<X> = fn(&[u8], &[X], usize, &mut [f32]);

/// The dot products of a type, by the form of its activations.
#[derive(Clone, Copy, Debug)]
pub enum Dot {
    /// Floats.
    F32(Dots<f32>),
    /// 8-bit activations, a block for each 32 weights.
    Q8(Dots<Q8Block>),
    /// 8-bit activations in groups, [`n_groups`](crate::activations::n_groups) a token.
    Q8Groups(Dots<Q8Group>),
}

/// Tokens that [`Dots`] take at most.
pub(crate) const TOKENS_AT_ONCE: usize = 8;

/// [`Dots`] from the products of one row.
#[inline(always)]
pub(crate) fn each_row<X>(
    rows: &[u8],
    x: &[X],
    n_tokens: usize,
    out: &mut [f32],
    dot: impl Fn(&[u8], &[X], &mut [f32]),
) {
    let n_rows = out.len() / n_tokens;
    let rows = rows.chunks_exact(rows.len() / n_rows);
    if n_tokens == 1 {
        return rows.zip(out).for_each(|(row, out)| dot(row, x, std::slice::from_mut(out)));
    }
    let mut products = [0.0; TOKENS_AT_ONCE];
    let products = &mut products[..n_tokens];
    for (r, row) in rows.enumerate() {
        dot(row, x, products);
        products.iter().enumerate().for_each(|(t, product)| out[t * n_rows + r] = *product);
    }
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
    /// GEMM, where the type has it.
    pub(crate) gemm: Option<Gemm>,
}

/// What the codes of a type stand for: its decoder needs this beside the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    /// Weights before they are scaled, in the order of codes.
    pub weights: Vec<i8>,
    /// How many of them a code stands for.
    pub per_code: usize,
}

/// The table of a type whose blocks hold codes; `None` for those that hold numbers. For decoders elsewhere: those of this
/// crate have it built in.
pub fn codes(ggml_type: GgmlType) -> Option<Codes> {
    quants::codes(ggml_type)
}

/// The functions for `ggml_type` on `isa`: kernels written for it, or else plain loops compiled for it.
pub fn ops(ggml_type: GgmlType, isa: Isa) -> QuantOps {
    quants::ops(ggml_type, isa)
}
