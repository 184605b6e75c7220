//! IQ3_XXS: 256 weights at 3.06 bits, `w = d · (s + ½) / 2 · ±grid`, with a 4-bit `s` for every 32.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: scale, an 8-bit code for each 4 weights, then a 32-bit word for each 32 weights: four times
/// seven signs, lowest first, and `s` in the top bits.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ3_XXS {
    d: [u8; 2],
    qs: [u8; 64],
    signs: [[u8; 4]; 8],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ3_XXS {
    const TYPE: GgmlType = GgmlType::IQ3_XXS;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        for (quants, &code) in quants.as_chunks_mut::<4>().0.iter_mut().zip(&self.qs[8 * i..]) {
            *quants = codebooks::IQ3_XXS[usize::from(code)];
        }
        let signs = u32::from_le_bytes(self.signs[i]);
        codebooks::negate(&mut quants, codebooks::signs_of_28(signs));
        let scale = bits::half(self.d) * (0.5 + (signs >> 28) as f32) * 0.5;
        Unpacked { quants, scales: [scale; 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.signs.iter_mut().for_each(|word| word.reverse());
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ3_XXS>(isa)
}
