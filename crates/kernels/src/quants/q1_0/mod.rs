//! Q1_0: 128 weights in 1 bit, `w = d` where the bit is set and `−d` where not.

#[cfg(target_arch = "aarch64")]
mod neon;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: scale, then the bits, lowest first.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ1_0 {
    d: [u8; 2],
    qs: [u8; 16],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ1_0 {
    const TYPE: GgmlType = GgmlType::Q1_0;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        for (quants, &byte) in quants.as_chunks_mut::<8>().0.iter_mut().zip(&self.qs[4 * i..]) {
            *quants = bits::weights(!bits::mask(byte) | bits::eight(1));
        }
        Unpacked { quants, scales: [bits::half(self.d); 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ1_0>(isa), neon)
}
