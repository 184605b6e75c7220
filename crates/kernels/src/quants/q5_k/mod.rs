//! Q5_K: 256 weights in 5 bits, `w = d · s · q − dmin · m`, with 6-bit `s` and `m` for every 32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{PanelBlock, Rows, four};
use crate::isa::Isa;
use crate::quants::{bits, q4_k, scalar};
use crate::registry::QuantOps;

/// A block: as Q4_K, and before the nibbles the fifth bits: bit `i` of `qh[j]` belongs to weight `32 i + j`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ5_K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    qh: [u8; 32],
    qs: [u8; 128],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ5_K {
    const TYPE: GgmlType = GgmlType::Q5_K;
    const HALVES: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let (scale, min) = q4_k::scale_min(&self.scales, i);
        let (qs, shift) = (&self.qs.as_chunks::<32>().0[i / 2], 4 * (i % 2));
        let mut quants = [0; 32];
        for (q, (low, high)) in quants.iter_mut().zip(qs.iter().zip(&self.qh)) {
            *q = (low >> shift & 15 | (high >> i & 1) << 4) as i8;
        }
        Unpacked {
            quants,
            scales: [bits::half(self.d) * f32::from(scale); 2],
            mins: [bits::half(self.dmin) * f32::from(min); 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let scales = q4_k::ScalesAndMins::<R::Column>::of(rows);
        let high = rows.run(offset_of!(Self, qh));
        for (i, panel) in panel.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let packed = rows.run(offset_of!(Self, qs) + 32 * i);
            for (j, panel) in panel.iter_mut().enumerate() {
                let mut quants = packed;
                for (q, high) in quants.iter_mut().zip(high) {
                    let high = high >> (2 * i + j) as u32 & four(1);
                    *q = *q >> (4 * j as u32) & four(15) | high << 4;
                }
                panel.set_quants(quants, 0);
                scales.set(2 * i + j, panel);
            }
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.dmin.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ5_K>(isa), avx2, avx512, neon)
}
