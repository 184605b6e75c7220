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
use crate::registry::{Dot, Dots, Encode, QuantOps, each_row};

/// The operations of a format that can't be made from floats.
pub(super) fn ops<B: QuantBlock>(isa: Isa) -> QuantOps {
    let (decode, dot): (Decode, Dots<Q8Block>) = match isa {
        Isa::Scalar => (decode::<B>, |rows, x, n, out| each_row(rows, x, n, out, dot::<B>)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonI8mm => (decode::<B>, |rows, x, n, out| {
            // SAFETY: both prove that this CPU has what the kernel is compiled for.
            each_row(rows, x, n, out, |row, x, out| unsafe { neon::dot::<B>(row, x, out) });
        }),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => (
            |row, out| {
                Isa::Avx2.run(
                    #[inline(always)]
                    || decode::<B>(row, out),
                )
            },
            |rows, x, n, out| {
                // SAFETY: an `Isa::Avx2` proves that this CPU has what the kernel is compiled for.
                each_row(rows, x, n, out, |row, x, out| unsafe { avx2::dot::<B>(row, x, out) });
            },
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
        Isa::Avx2 | Isa::Avx512 | Isa::Amx => |x, row| {
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

fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let (row, per_block) = (blocks::<B>(row), const { B::TYPE.block_len() / Q8_LEN });
    let x_len = row.len() * per_block;
    assert_eq!(x.len(), out.len() * x_len, "one activation block for every 32 weights");
    out.fill(0.0);
    for (b, block) in row.iter().enumerate() {
        for i in 0..per_block {
            let weights = block.unpack(i);
            for (sum, x) in out.iter_mut().zip(x.chunks_exact(x_len)) {
                *sum += weights.dot(&x[b * per_block + i]);
            }
        }
    }
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
