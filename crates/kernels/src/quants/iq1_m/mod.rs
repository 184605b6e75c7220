//! IQ1_M: 256 weights at 1.75 bits, `w = d · (2 s + 1) · (grid ± ⅛)`, with a 3-bit `s` for every 16.
//!
//! As IQ1_S, with a shift for every 8 weights and no field for the scale.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: the low 8 bits of the 11-bit codes (one for each 8 weights); a nibble for each code, its high
/// three bits and whether the shift is −⅛; four 16-bit words, each with four `s`, lowest first, and in its
/// top bits a quarter of the half-precision scale, lowest quarter first.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ1_M {
    qs: [u8; 32],
    qh: [u8; 16],
    scales: [[u8; 2]; 4],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ1_M {
    const TYPE: GgmlType = GgmlType::IQ1_M;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        for (k, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let nibble = self.qh[2 * i + k / 2] >> (4 * (k % 2)) & 15;
            let code = usize::from(self.qs[4 * i + k]) | usize::from(nibble & 7) << 8;
            *quants = codebooks::iq1(code, nibble >> 3 == 1);
        }
        let words = self.scales.map(u16::from_le_bytes);
        let d = words[0] >> 12 | words[1] >> 12 << 4 | words[2] >> 12 << 8 | words[3] >> 12 << 12;
        let d = bits::half(d.to_le_bytes());
        let s = |j: usize| words[j / 4] >> (3 * (j % 4)) & 7;
        let scales = [s(2 * i), s(2 * i + 1)].map(|s| d * f32::from(2 * s + 1) * 0.125);
        Unpacked { quants, scales, mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.scales.iter_mut().for_each(|word| word.reverse());
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ1_M>(isa)
}
