//! Q4_K: 256 weights in 4 bits, `w = d · s · q − dmin · m`, with 6-bit `s` and `m` for every 32.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;

use std::mem::offset_of;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::gemm::{Column, PanelBlock, Rows, four};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: two scales, [`scale_min`]'s 12 bytes, then for each 64 weights 32 bytes whose low nibbles are
/// the first 32 and high nibbles the second.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ4_K {
    d: [u8; 2],
    dmin: [u8; 2],
    scales: [u8; 12],
    qs: [u8; 128],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ4_K {
    const TYPE: GgmlType = GgmlType::Q4_K;
    const HALVES: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let (scale, min) = scale_min(&self.scales, i);
        let (qs, shift) = (&self.qs.as_chunks::<32>().0[i / 2], 4 * (i % 2));
        let mut quants = [0; 32];
        for (q, byte) in quants.iter_mut().zip(qs) {
            *q = (byte >> shift & 15) as i8;
        }
        Unpacked {
            quants,
            scales: [bits::half(self.d) * f32::from(scale); 2],
            mins: [bits::half(self.dmin) * f32::from(min); 2],
        }
    }

    #[inline(always)]
    fn expand<R: Rows<Self>>(rows: &R, panel: &mut [PanelBlock]) {
        let scales = ScalesAndMins::<R::Column>::of(rows);
        for (i, panel) in panel.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let packed = rows.run(offset_of!(Self, qs) + 32 * i);
            for (j, panel) in panel.iter_mut().enumerate() {
                let mut quants = packed;
                for q in &mut quants {
                    *q = *q >> (4 * j as u32) & four(15);
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

/// The `i`-th of the eight pairs of 6-bit numbers that Q4_K and Q5_K keep in 12 bytes.
///
/// The first four scales are the low bits of bytes 0–3, the first four minima those of bytes 4–7. The
/// others have their low four bits in bytes 8–11 (scale in the low nibble, minimum in the high one) and
/// their high two in the top bits that bytes 0–7 left free.
#[inline(always)]
pub(super) fn scale_min(packed: &[u8; 12], i: usize) -> (u8, u8) {
    let j = i % 4;
    let (scale, min, low) = (packed[j], packed[j + 4], packed[j + 8]);
    if i < 4 { (scale & 63, min & 63) } else { (low & 15 | scale >> 6 << 4, low >> 4 | min >> 6 << 4) }
}

/// What Q4_K and Q5_K say of the scales of 16 rows, in the 16 bytes that both begin with.
pub(super) struct ScalesAndMins<C: Column> {
    d: C::Floats,
    dmin: C::Floats,
    /// Four 6-bit numbers in each, as [`scale_min`] describes them.
    scales: [C; 2],
    mins: [C; 2],
}

impl<C: Column> ScalesAndMins<C> {
    #[inline(always)]
    pub(super) fn of<B: QuantBlock>(rows: &impl Rows<B, Column = C>) -> Self {
        let [d_dmin, a, b, c] = rows.columns(0);
        let high = |x: C| (x >> 6 & four(3)) << 4;
        Self {
            d: d_dmin.half(),
            dmin: (d_dmin >> 16).half(),
            scales: [a & four(63), c & four(15) | high(a)],
            mins: [b & four(63), c >> 4 & four(15) | high(b)],
        }
    }

    /// Sets those of the `i`-th 32 weights.
    #[inline(always)]
    pub(super) fn set(&self, i: usize, panel: &mut PanelBlock) {
        panel.set_scales::<C>(self.d * self.scales[i / 4].signed_byte(i % 4));
        panel.set_mins::<C>(self.dmin * self.mins[i / 4].signed_byte(i % 4));
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ4_K>(isa), avx2, avx512, neon)
}
