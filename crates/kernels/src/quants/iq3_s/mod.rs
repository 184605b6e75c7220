//! IQ3_S: 256 weights at 3.44 bits, `w = d · (2 s + 1) · ±grid`, with a 4-bit `s` for every 32.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: scale, the low 8 bits of the 9-bit codes (one for each 4 weights), their ninth bits, the signs
/// of all weights, then `s` in nibbles.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ3_S {
    d: [u8; 2],
    qs: [u8; 64],
    qh: [u8; 8],
    signs: [u8; 32],
    scales: [u8; 4],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ3_S {
    const TYPE: GgmlType = GgmlType::IQ3_S;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        for (k, quants) in quants.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let high = usize::from(self.qh[i] >> k & 1);
            *quants = codebooks::IQ3_S[usize::from(self.qs[8 * i + k]) | high << 8];
        }
        codebooks::negate(&mut quants, self.signs.as_chunks::<4>().0[i]);
        let s = self.scales[i / 2] >> (4 * (i % 2)) & 15;
        Unpacked { quants, scales: [bits::half(self.d) * f32::from(2 * s + 1); 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ3_S>(isa)
}
