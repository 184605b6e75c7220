//! IQ2_XS: 256 weights at 2.31 bits, `w = d · (s + ½) / 4 · ±grid`, with a 4-bit `s` for every 16.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: scale, a 16-bit word for each 8 weights, then `s` in nibbles.
///
/// The low 9 bits of a word are a code of the codebook, the high 7 are signs.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ2_XS {
    d: [u8; 2],
    qs: [[u8; 2]; 32],
    scales: [u8; 8],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ2_XS {
    const TYPE: GgmlType = GgmlType::IQ2_XS;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let words = self.qs.as_chunks::<4>().0[i].map(u16::from_le_bytes);
        let mut quants = [0; 32];
        for (quants, word) in quants.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *quants = codebooks::IQ2_XS[usize::from(word & 511)];
        }
        codebooks::negate(&mut quants, words.map(|word| codebooks::eight_signs((word >> 9) as u8)));
        let (d, packed) = (bits::half(self.d), self.scales[i]);
        let scales = [packed & 15, packed >> 4].map(|s| d * (0.5 + f32::from(s)) * 0.25);
        Unpacked { quants, scales, mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.qs.iter_mut().for_each(|word| word.reverse());
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ2_XS>(isa)
}
