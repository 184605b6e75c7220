//! IQ1_S: 256 weights at 1.56 bits, `w = d · (2 s + 1) · (grid ± ⅛)`, with a 3-bit `s` for every 32.
//!
//! The grid is ternary. As integers: `w = d · (2 s + 1) / 8 · (8 grid ± 1)`.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: scale, the low 8 bits of the 11-bit codes (one for each 8 weights), then a 16-bit word for each
/// 32 weights: four times the codes' high three bits, lowest first, `s`, and whether the shift is −⅛.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ1_S {
    d: [u8; 2],
    qs: [u8; 32],
    qh: [[u8; 2]; 8],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ1_S {
    const TYPE: GgmlType = GgmlType::IQ1_S;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let word = u16::from_le_bytes(self.qh[i]);
        let mut quants = [0; 32];
        for (k, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let code = usize::from(self.qs[4 * i + k]) | usize::from(word >> (3 * k) & 7) << 8;
            *quants = codebooks::iq1(code, word >> 15 == 1);
        }
        let scale = bits::half(self.d) * f32::from(2 * (word >> 12 & 7) + 1) * 0.125;
        Unpacked { quants, scales: [scale; 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.qh.iter_mut().for_each(|word| word.reverse());
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ1_S>(isa)
}
