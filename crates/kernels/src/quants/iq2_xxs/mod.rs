//! IQ2_XXS: 256 weights at 2.06 bits, `w = d · (s + ½) / 4 · ±grid`, with a 4-bit `s` for every 32.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: scale, then two 32-bit words for each 32 weights.
///
/// The first word holds four 8-bit codes, each 8 magnitudes of the codebook. The second holds four times
/// seven signs, lowest first, and `s` in its top bits.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ2_XXS {
    d: [u8; 2],
    qs: [[[u8; 4]; 2]; 8],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ2_XXS {
    const TYPE: GgmlType = GgmlType::IQ2_XXS;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let [codes, signs] = self.qs[i];
        let mut quants = [0; 32];
        for (quants, code) in quants.as_chunks_mut::<8>().0.iter_mut().zip(codes) {
            *quants = codebooks::IQ2_XXS[usize::from(code)];
        }
        let signs = u32::from_le_bytes(signs);
        codebooks::negate(&mut quants, codebooks::signs_of_28(signs));
        let scale = bits::half(self.d) * (0.5 + (signs >> 28) as f32) * 0.25;
        Unpacked { quants, scales: [scale; 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.qs.as_flattened_mut().iter_mut().for_each(|word| word.reverse());
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ2_XXS>(isa)
}
