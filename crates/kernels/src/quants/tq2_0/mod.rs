//! TQ2_0: 256 ternary weights in 2 bits, `w = d · (q − 1)`.

#[cfg(target_arch = "aarch64")]
mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{Column, PanelBlock, Rows, four};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: quants as in Q2_K, then the scale.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockTQ2_0 {
    qs: [u8; 64],
    d: [u8; 2],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockTQ2_0 {
    const TYPE: GgmlType = GgmlType::TQ2_0;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        Unpacked {
            quants: bits::pairs(&self.qs.as_chunks().0[i / 4], 2 * (i % 4), 1),
            scales: [bits::half(self.d); 2],
            mins: [0.0; 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let d = (rows.column(size_of::<Self>() - 4) >> 16).half();
        for (half, panel) in panel.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let packed = rows.run(offset_of!(Self, qs) + 32 * half);
            for (run, panel) in panel.iter_mut().enumerate() {
                let mut quants = packed;
                for q in &mut quants {
                    *q = *q >> (2 * run as u32) & four(3);
                }
                panel.set_quants(quants, 1);
                panel.set_scales::<R::Column>(d);
            }
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockTQ2_0>(isa), neon)
}
