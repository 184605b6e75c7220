//! IQ2_S: 256 weights at 2.56 bits, `w = d · (s + ½) / 4 · ±grid`, with a 4-bit `s` for every 16.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, codebooks, scalar};
use crate::registry::QuantOps;

/// A block: scale, the low 8 bits of the 10-bit codes (one for each 8 weights), the signs of all weights,
/// the high two bits of the codes (four in a byte, lowest first), then `s` in nibbles.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockIQ2_S {
    d: [u8; 2],
    qs: [u8; 32],
    signs: [u8; 32],
    qh: [u8; 8],
    scales: [u8; 8],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockIQ2_S {
    const TYPE: GgmlType = GgmlType::IQ2_S;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        for (k, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = usize::from(self.qh[i] >> (2 * k) & 3);
            let code = usize::from(self.qs[4 * i + k]) | high << 8;
            *quants = codebooks::IQ2_S[code];
        }
        codebooks::negate(&mut quants, self.signs.as_chunks::<4>().0[i]);
        let (d, packed) = (bits::half(self.d), self.scales[i]);
        let scales = [packed & 15, packed >> 4].map(|s| d * (0.5 + f32::from(s)) * 0.25);
        Unpacked { quants, scales, mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockIQ2_S>(isa)
}
