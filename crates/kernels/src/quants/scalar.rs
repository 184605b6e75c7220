//! The row operations of every quantized format, in plain Rust, from what [`QuantBlock`] says of a block.

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::{QuantBlock, Quantize, blocks, blocks_mut};
use crate::isa::Isa;
use crate::registry::{Dot, QuantOps};

/// The operations of a format that can't be made from floats.
pub(super) const fn ops<B: QuantBlock>() -> QuantOps {
    QuantOps {
        ggml_type: B::TYPE,
        isa: Isa::Scalar,
        decode: decode::<B>,
        encode: None,
        swap_bytes: swap_bytes::<B>,
        dot: Dot::Q8(dot::<B>),
    }
}

/// The operations of a format that can.
pub(super) const fn ops_with_encode<B: Quantize>() -> QuantOps {
    QuantOps { encode: Some(encode::<B>), ..ops::<B>() }
}

fn decode<B: QuantBlock>(row: &[u8], out: &mut [f32]) {
    let row = blocks::<B>(row);
    assert_eq!(out.len(), row.len() * B::TYPE.block_len(), "output length is the row's length");
    for (block, out) in row.iter().zip(out.chunks_exact_mut(B::TYPE.block_len())) {
        for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            block.unpack(i).decode(out);
        }
    }
}

fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block]) -> f32 {
    let (row, per_block) = (blocks::<B>(row), B::TYPE.block_len() / Q8_LEN);
    assert_eq!(x.len(), row.len() * per_block, "one activation block for every 32 weights");
    let mut sum = 0.0;
    for (block, x) in row.iter().zip(x.chunks_exact(per_block)) {
        for (i, x) in x.iter().enumerate() {
            sum += block.unpack(i).dot(x);
        }
    }
    sum
}

fn encode<B: Quantize>(x: &[f32], row: &mut [u8]) {
    let row = blocks_mut::<B>(row);
    assert_eq!(x.len(), row.len() * B::TYPE.block_len(), "input length is the row's length");
    for (block, x) in row.iter_mut().zip(x.chunks_exact(B::TYPE.block_len())) {
        *block = B::quantize(x);
    }
}

fn swap_bytes<B: QuantBlock>(row: &mut [u8]) {
    blocks_mut::<B>(row).iter_mut().for_each(B::swap_bytes);
}
