//! MXFP4: 32 weights as 4-bit floats (E2M1) with a power of two for a scale (E8M0).
//!
//! Source: OCP Microscaling Formats (MX) Specification, version 1.0.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{PanelBlock, ROWS, Rows, nibbles};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: exponent of the scale, then 16 bytes whose low nibbles are weights 0–15 and high nibbles 16–31.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockMXFP4 {
    e: u8,
    qs: [u8; 16],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockMXFP4 {
    const TYPE: GgmlType = GgmlType::MXFP4;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, _i: usize) -> Unpacked {
        Unpacked {
            quants: bits::levels(&self.qs, &DOUBLED_E2M1),
            scales: [half_e8m0(self.e); 2],
            mins: [0.0; 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let codes = nibbles(rows.columns(offset_of!(Self, qs)));
        panel[0].set_levels(codes, &DOUBLED_E2M1);
        let mut scales = [0.0; ROWS];
        for (r, scale) in scales.iter_mut().enumerate() {
            *scale = half_e8m0(rows.block(r).e);
        }
        panel[0].scales[0] = scales;
    }

    /// All fields are single bytes.
    fn swap_bytes(&mut self) {}
}

/// Twice the values of the 16 E2M1 floats, which makes integers of them.
pub(super) const DOUBLED_E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of 2^(e − 127). The two smallest are subnormal floats. E8M0 has a NaN, 255; ggml takes it as 2^128.
#[inline(always)]
fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockMXFP4>(isa), avx2, avx512, neon)
}
