//! Q6_K: 256 weights in 6 bits, `w = d · s · (q − 32)`, with an 8-bit `s` for every 16.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{Column, PanelBlock, Rows, four};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: low four bits, high two bits, sub-scales, scale.
///
/// Each 128 weights take 64 bytes of `ql` and 32 of `qh`. Of these four runs of 32, the first two have
/// their low bits in the low nibbles of the 64 bytes, the last two in the high nibbles; all four share
/// the bytes of `qh`, two bits each, the first run lowest.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ6_K {
    ql: [u8; 128],
    qh: [u8; 64],
    scales: [i8; 16],
    d: [u8; 2],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ6_K {
    const TYPE: GgmlType = GgmlType::Q6_K;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let (half, run) = (i / 4, i % 4);
        let ql = &self.ql.as_chunks::<32>().0[2 * half + run % 2];
        let qh = &self.qh.as_chunks::<32>().0[half];
        let mut quants = [0; 32];
        for (q, (low, high)) in quants.iter_mut().zip(ql.iter().zip(qh)) {
            let (low, high) = (low >> (4 * (run / 2)) & 15, high >> (2 * run) & 3);
            *q = (low | high << 4) as i8 - 32;
        }
        let d = bits::half(self.d);
        Unpacked {
            quants,
            scales: [d * f32::from(self.scales[2 * i]), d * f32::from(self.scales[2 * i + 1])],
            mins: [0.0; 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let scales = rows.columns(offset_of!(Self, scales));
        let d = (rows.column(size_of::<Self>() - 4) >> 16).half();
        for (half, panel) in panel.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let high = rows.run(offset_of!(Self, qh) + 32 * half);
            let ql = offset_of!(Self, ql) + 64 * half;
            let low = [rows.run(ql), rows.run(ql + 32)];
            for (run, panel) in panel.iter_mut().enumerate() {
                let mut quants = low[run % 2];
                for (q, high) in quants.iter_mut().zip(high) {
                    let high = high >> (2 * run as u32) & four(3);
                    *q = *q >> (4 * (run as u32 / 2)) & four(15) | high << 4;
                }
                panel.set_quants(quants, 32);
                let scales = scales[2 * half + run / 2];
                for i in 0..2 {
                    panel.set_half_scales::<R::Column>(i, d * scales.signed_byte(2 * (run % 2) + i));
                }
            }
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ6_K>(isa), avx2, avx512, neon)
}
