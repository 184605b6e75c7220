//! IQ4_XS: 256 weights at 4.25 bits, `w = d · (s − 32) · level(q)`, with a 6-bit `s` for every 32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{Column, PanelBlock, Rows, nibbles};
use crate::isa::Isa;
use crate::quants::{bits, iq4_nl::LEVELS, scalar};
use crate::registry::QuantOps;

/// A block: scale, the high two bits of the `s` (one 16-bit field, lowest first), their low four bits, then
/// for each 32 weights 16 bytes as in IQ4_NL, whose levels these are too.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ4_XS {
    d: [u8; 2],
    scales_h: [u8; 2],
    scales_l: [u8; 4],
    qs: [[u8; 16]; 8],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ4_XS {
    const TYPE: GgmlType = GgmlType::IQ4_XS;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        Unpacked {
            quants: bits::levels(&self.qs[i], &LEVELS),
            scales: [bits::half(self.d) * f32::from(self.sub_scale(i)); 2],
            mins: [0.0; 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let [d_high, low, ..] = rows.columns(offset_of!(Self, d));
        for (i, panel) in panel.iter_mut().enumerate() {
            panel.set_levels(nibbles(rows.columns(offset_of!(Self, qs) + 16 * i)), &LEVELS);
            let i = i as u32;
            let scale = low >> (4 * i) & 15 | (d_high >> (16 + 2 * i) & 3) << 4;
            // As a byte less 32.
            let scale = scale + 32u32.wrapping_neg();
            panel.set_scales::<R::Column>(d_high.half() * scale.signed_byte(0));
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.scales_h.reverse();
    }
}

impl BlockIQ4_XS {
    /// The scale of the `i`-th 32 weights, −32 … 31.
    #[inline(always)]
    fn sub_scale(&self, i: usize) -> i8 {
        let low = self.scales_l[i / 2] >> (4 * (i % 2)) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * i) & 3) as u8;
        (low | high << 4) as i8 - 32
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockIQ4_XS>(isa), avx2, avx512, neon)
}
