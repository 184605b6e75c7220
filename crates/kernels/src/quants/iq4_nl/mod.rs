//! IQ4_NL: 32 weights in 4 bits, `w = d · level(q)`, with levels denser about 0.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{Column, PanelBlock, Rows, nibbles};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: scale, then 16 bytes whose low nibbles are weights 0–15 and high nibbles 16–31.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ4_NL {
    d: [u8; 2],
    qs: [u8; 16],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ4_NL {
    const TYPE: GgmlType = GgmlType::IQ4_NL;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, _i: usize) -> Unpacked {
        Unpacked { quants: bits::levels(&self.qs, &LEVELS), scales: [bits::half(self.d); 2], mins: [0.0; 2] }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let codes = nibbles(rows.columns(offset_of!(Self, qs)));
        panel[0].set_levels(codes, &LEVELS);
        panel[0].set_scales::<R::Column>(rows.column(offset_of!(Self, d)).half());
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

/// What the 4-bit codes of IQ4_NL and IQ4_XS stand for.
pub(super) const LEVELS: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockIQ4_NL>(isa), avx2, avx512, neon)
}
