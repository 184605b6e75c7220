//! Q3_K: 256 weights in 3 bits, `w = d · (s − 32) · (q − 4)`, with a 6-bit `s` for every 16.

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

/// A block: the third bits, the low two, sub-scales, scale.
///
/// `qs` is as in Q2_K. Bit `i` of `hmask[j]` belongs to weight `32 i + j`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ3_K {
    hmask: [u8; 32],
    qs: [u8; 64],
    scales: [u8; 12],
    d: [u8; 2],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ3_K {
    const TYPE: GgmlType = GgmlType::Q3_K;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let (qs, shift) = (&self.qs.as_chunks::<32>().0[i / 4], 2 * (i % 4));
        let mut quants = [0; 32];
        for (q, (low, high)) in quants.iter_mut().zip(qs.iter().zip(&self.hmask)) {
            *q = (low >> shift & 3 | (high >> i & 1) << 2) as i8 - 4;
        }
        let d = bits::half(self.d);
        let scale = |j| d * f32::from(sub_scale(&self.scales, j));
        Unpacked { quants, scales: [scale(2 * i), scale(2 * i + 1)], mins: [0.0; 2] }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let d = (rows.column(size_of::<Self>() - 4) >> 16).half();
        let at = offset_of!(Self, scales);
        let (a, b, high) = (rows.column(at), rows.column(at + 4), rows.column(at + 8));
        // As `sub_scale` says: of these the `j`-th four.
        let low = [a, b, a >> 4, b >> 4];
        let third = rows.run(offset_of!(Self, hmask));
        for (half, panel) in panel.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let packed = rows.run(offset_of!(Self, qs) + 32 * half);
            for (run, panel) in panel.iter_mut().enumerate() {
                let mut quants = packed;
                for (q, third) in quants.iter_mut().zip(third) {
                    let third = third >> (4 * half + run) as u32 & four(1);
                    *q = *q >> (2 * run as u32) & four(3) | third << 2;
                }
                panel.set_quants(quants, 4);
                let j = 2 * half + run / 2;
                let scales = low[j] & four(15) | (high >> (2 * j as u32) & four(3)) << 4;
                for i in 0..2 {
                    // As a byte less 32.
                    let scale = (scales >> (8 * (2 * (run % 2) + i) as u32) & 63) + 32u32.wrapping_neg();
                    panel.set_half_scales::<R::Column>(i, d * scale.signed_byte(0));
                }
            }
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

/// The `j`-th of sixteen 6-bit numbers, less 32: four low bits in a nibble of bytes 0–7 (low nibbles
/// first), two high bits in bytes 8–11 (lowest pair of each byte first).
#[inline(always)]
fn sub_scale(packed: &[u8; 12], j: usize) -> i8 {
    let low = packed[j % 8] >> (4 * (j / 8)) & 15;
    let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
    (low | high << 4) as i8 - 32
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ3_K>(isa), avx512, neon)
}
