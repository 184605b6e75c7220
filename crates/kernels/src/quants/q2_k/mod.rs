//! Q2_K: 256 weights in 2 bits, `w = d · s · q − dmin · m`, with 4-bit `s` and `m` for every 16.

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

/// A block: a byte for every 16 weights with `s` in its low nibble and `m` in its high one; quants; scales.
///
/// Each 128 weights take 32 bytes of `qs`: four runs of 32, two bits each, the first run lowest.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ2_K {
    scales: [u8; 16],
    qs: [u8; 64],
    d: [u8; 2],
    dmin: [u8; 2],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ2_K {
    const TYPE: GgmlType = GgmlType::Q2_K;
    const HALVES: bool = true;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let (d, dmin) = (bits::half(self.d), bits::half(self.dmin));
        let packed = self.scales.as_chunks::<2>().0[i];
        Unpacked {
            quants: bits::pairs(&self.qs.as_chunks().0[i / 4], 2 * (i % 4), 0),
            scales: packed.map(|byte| d * f32::from(byte & 15)),
            mins: packed.map(|byte| dmin * f32::from(byte >> 4)),
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let d_dmin = rows.column(offset_of!(Self, d));
        let (d, dmin) = (d_dmin.half(), (d_dmin >> 16).half());
        let scales_mins = rows.columns(offset_of!(Self, scales));
        for (half, panel) in panel.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let packed = rows.run(offset_of!(Self, qs) + 32 * half);
            for (run, panel) in panel.iter_mut().enumerate() {
                let mut quants = packed;
                for q in &mut quants {
                    *q = *q >> (2 * run as u32) & four(3);
                }
                panel.set_quants(quants, 0);
                let four_scales = scales_mins[2 * half + run / 2];
                for i in 0..2 {
                    let byte = 2 * (run % 2) + i;
                    panel.set_half_scales::<R::Column>(i, d * (four_scales & four(15)).signed_byte(byte));
                    panel.set_half_mins::<R::Column>(
                        i,
                        dmin * (four_scales >> 4 & four(15)).signed_byte(byte),
                    );
                }
            }
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.dmin.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ2_K>(isa), avx512, neon)
}
