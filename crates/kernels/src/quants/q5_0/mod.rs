//! Q5_0: 32 weights in 5 bits, `w = d · (q − 16)`.

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
use crate::gemm::{Column, PanelBlock, Rows, five_bits};
use crate::isa::Isa;
use crate::quants::{bits, rounding, scalar};
use crate::registry::QuantOps;

/// A block: scale, the fifth bits (one 32-bit field), then the low four as in Q4_0.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ5_0 {
    d: [u8; 2],
    qh: [u8; 4],
    qs: [u8; 16],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ5_0 {
    const TYPE: GgmlType = GgmlType::Q5_0;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, _i: usize) -> Unpacked {
        Unpacked {
            quants: bits::five_bits(&self.qs, self.qh, 16),
            scales: [bits::half(self.d); 2],
            mins: [0.0; 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let high = rows.column(offset_of!(Self, qh));
        panel[0].set_quants(five_bits(rows.columns(offset_of!(Self, qs)), high), 16);
        panel[0].set_scales::<R::Column>(rows.column(offset_of!(Self, d)).half());
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.qh.reverse();
    }
}

impl Quantize for BlockQ5_0 {
    fn quantize(x: &[f32]) -> Self {
        let (d, quants) = rounding::signed(x, 16);
        Self {
            d: f16::from_f32(d).to_le_bytes(),
            qh: bits::fifth_bits(&quants),
            qs: bits::pack_nibbles(&quants),
        }
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops_with_encode::<BlockQ5_0>(isa), avx2, avx512, neon)
}
