//! TQ2_0: 256 ternary weights in 2 bits, `w = d · (q − 1)`.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
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

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops::<BlockTQ2_0>(isa)
}
