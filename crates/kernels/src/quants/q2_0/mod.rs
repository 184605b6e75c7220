//! Q2_0: 64 weights in 2 bits, `w = d · (q − 1)`.

#[cfg(target_arch = "aarch64")]
mod neon;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: scale, then four weights a byte, lowest bits first.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ2_0 {
    d: [u8; 2],
    qs: [u8; 16],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ2_0 {
    const TYPE: GgmlType = GgmlType::Q2_0;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let qs = &self.qs.as_chunks::<8>().0[i];
        Unpacked {
            quants: std::array::from_fn(|j| (qs[j / 4] >> (2 * (j % 4)) & 3) as i8 - 1),
            scales: [bits::half(self.d); 2],
            mins: [0.0; 2],
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockQ2_0>(isa), neon)
}
