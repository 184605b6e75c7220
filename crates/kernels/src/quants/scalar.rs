//! The row operations of every quantized format, from what [`QuantBlock`] says of a block: plain loops,
//! compiled once for each instruction set.

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::{QuantBlock, Quantize, blocks, blocks_mut};
use crate::gemm::Gemm;
use crate::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::quants::avx2;
#[cfg(target_arch = "aarch64")]
use crate::quants::neon;
use crate::registry::{Dot, Encode, QuantOps};

/// The operations of a format that can't be made from floats.
pub(super) fn ops<B: QuantBlock>(isa: Isa) -> QuantOps {
    let (decode, dot): (Decode, DotQ8) = match isa {
        Isa::Scalar => (decode::<B>, dot::<B>),
        // SAFETY: both prove that this CPU has what the kernel is compiled for.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonI8mm => (decode::<B>, |row, x| unsafe { neon::dot::<B>(row, x) }),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => (
            |row, out| {
                Isa::Avx2.run(
                    #[inline(always)]
                    || decode::<B>(row, out),
                )
            },
            // SAFETY: an `Isa::Avx2` proves that this CPU has what the kernel is compiled for.
            |row, x| unsafe { avx2::dot::<B>(row, x) },
        ),
    };
    QuantOps {
        ggml_type: B::TYPE,
        isa,
        decode,
        encode: None,
        swap_bytes: swap_bytes::<B>,
        dot: Dot::Q8(dot),
        gemm: Gemm::of::<B>(isa),
    }
}

/// The operations of a format that can.
pub(super) fn ops_with_encode<B: Quantize>(isa: Isa) -> QuantOps {
    let encode: Encode = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => |x, row| {
            Isa::Avx2.run(
                #[inline(always)]
                || encode::<B>(x, row),
            )
        },
        _ => encode::<B>,
    };
    QuantOps { encode: Some(encode), ..ops::<B>(isa) }
}

type Decode = fn(&[u8], &mut [f32]);
type DotQ8 = fn(&[u8], &[Q8Block]) -> f32;

#[inline(always)]
fn decode<B: QuantBlock>(row: &[u8], out: &mut [f32]) {
    let (row, block_len) = (blocks::<B>(row), const { B::TYPE.block_len() });
    assert_eq!(out.len(), row.len() * block_len, "output length is the row's length");
    for (block, out) in row.iter().zip(out.chunks_exact_mut(block_len)) {
        for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            block.unpack(i).decode(out);
        }
    }
}

#[inline(always)]
fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block]) -> f32 {
    let (row, per_block) = (blocks::<B>(row), const { B::TYPE.block_len() / Q8_LEN });
    assert_eq!(x.len(), row.len() * per_block, "one activation block for every 32 weights");
    let mut sum = 0.0;
    for (block, x) in row.iter().zip(x.chunks_exact(per_block)) {
        for (i, x) in x.iter().enumerate() {
            sum += block.unpack(i).dot(x);
        }
    }
    sum
}

#[inline(always)]
fn encode<B: Quantize>(x: &[f32], row: &mut [u8]) {
    let (row, block_len) = (blocks_mut::<B>(row), const { B::TYPE.block_len() });
    assert_eq!(x.len(), row.len() * block_len, "input length is the row's length");
    for (block, x) in row.iter_mut().zip(x.chunks_exact(block_len)) {
        *block = B::quantize(x);
    }
}

fn swap_bytes<B: QuantBlock>(row: &mut [u8]) {
    blocks_mut::<B>(row).iter_mut().for_each(B::swap_bytes);
}
