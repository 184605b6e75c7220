//! NVFP4: 64 weights as 4-bit floats (E2M1) with an 8-bit float (E4M3) for a scale of every 16.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{mxfp4::DOUBLED_E2M1, scalar};
use crate::registry::QuantOps;

/// A block: four scales, then for each 16 weights 8 bytes whose low nibbles are the first eight and high
/// nibbles the others.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockNVFP4 {
    d: [u8; 4],
    qs: [u8; 32],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockNVFP4 {
    const TYPE: GgmlType = GgmlType::NVFP4;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        for (half, quants) in quants.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (j, &byte) in self.qs.as_chunks::<8>().0[2 * i + half].iter().enumerate() {
                quants[j] = DOUBLED_E2M1[usize::from(byte & 15)];
                quants[j + 8] = DOUBLED_E2M1[usize::from(byte >> 4)];
            }
        }
        Unpacked { quants, scales: [half_e4m3(self.d[2 * i]), half_e4m3(self.d[2 * i + 1])], mins: [0.0; 2] }
    }

    /// All fields are single bytes.
    fn swap_bytes(&mut self) {}
}

/// Half of a non-negative E4M3 float. ggml never writes the sign bit and ignores it, but for telling NaN:
/// 0x7F, which it takes as 0.
#[inline(always)]
fn half_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), u32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa as f32 / 1024.0,
        _ => f32::from_bits((exponent + 119) << 23 | mantissa << 20),
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockNVFP4>(isa), avx2, avx512, neon)
}
