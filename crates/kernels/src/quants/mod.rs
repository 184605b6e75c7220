//! One folder a format; this file is the list of them.

mod f32;
mod q4_0;

use metallic_gguf::GgmlType;

use crate::activations::Q8Block;
use crate::block::{DotQ8, QuantBlock, blocks, blocks_mut};
use crate::isa::Isa;
use crate::registry::{Dot, QuantOps};

/// One line a format.
pub(crate) fn ops(ggml_type: GgmlType, isa: Isa) -> QuantOps {
    match ggml_type {
        GgmlType::F32 => f32::ops(isa),
        GgmlType::Q4_0 => q4_0::ops(isa),
        _ => unimplemented!(),
    }
}

fn decode_row<B: QuantBlock>(row: &[u8], out: &mut [f32]) {
    let (blocks, out) = (blocks::<B>(row), out.chunks_exact_mut(B::TYPE.block_len()));
    assert_eq!(blocks.len(), out.len(), "output length is the row's length");
    for (block, out) in blocks.iter().zip(out) {
        block.decode(out);
    }
}

fn swap_row<B: QuantBlock>(row: &mut [u8]) {
    blocks_mut::<B>(row).iter_mut().for_each(B::swap_bytes);
}

fn dot_row<B: DotQ8>(row: &[u8], x: &[Q8Block]) -> f32 {
    let (blocks, x) = (blocks::<B>(row), x.chunks_exact(B::TYPE.block_len() / 32));
    assert_eq!(blocks.len(), x.len(), "one activation block for every 32 weights");
    blocks.iter().zip(x).map(|(block, x)| block.dot_q8(x)).sum()
}

/// The scalar operations of a format with integer dot products.
const fn scalar_q8<B: DotQ8>() -> QuantOps {
    QuantOps {
        ggml_type: B::TYPE,
        isa: Isa::Scalar,
        decode: decode_row::<B>,
        encode: None,
        swap_bytes: swap_row::<B>,
        dot: Dot::Q8(dot_row::<B>),
    }
}
