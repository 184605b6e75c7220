//! Q8_0: 32 weights in 8 bits, `w = d · q`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use half::f16;
use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Quantize, Unpacked};
use crate::gemm::{Column, PanelBlock, Rows};
use crate::isa::Isa;
use crate::quants::{bits, rounding, scalar};
use crate::registry::QuantOps;

/// A block: scale, then 32 signed bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ8_0 {
    d: [u8; 2],
    qs: [i8; 32],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ8_0 {
    const TYPE: GgmlType = GgmlType::Q8_0;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, _i: usize) -> Unpacked {
        Unpacked { quants: self.qs, scales: [bits::half(self.d); 2], mins: [0.0; 2] }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        panel[0].set_signed(rows.run(offset_of!(Self, qs)));
        panel[0].set_scales::<R::Column>(rows.column(offset_of!(Self, d)).half());
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

impl Quantize for BlockQ8_0 {
    #[inline(always)]
    fn quantize(x: &[f32]) -> Self {
        let (d, qs) = rounding::eight_bits(x);
        Self { d: f16::from_f32(d).to_le_bytes(), qs }
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops_with_encode::<BlockQ8_0>(isa), avx2, avx512, neon)
}
