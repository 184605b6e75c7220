//! Q8_K: 256 values in 8 bits, `w = d · q`. ggml keeps activations in it; models don't use it.

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Quantize, Unpacked};
use crate::isa::Isa;
use crate::quants::{rounding, scalar};
use crate::registry::QuantOps;

/// A block: scale in single precision, the values, and their sums by 16 (which decoding ignores).
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ8_K {
    d: [u8; 4],
    qs: [i8; 256],
    bsums: [[u8; 2]; 16],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ8_K {
    const TYPE: GgmlType = GgmlType::Q8_K;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        Unpacked {
            quants: self.qs.as_chunks::<32>().0[i],
            scales: [f32::from_le_bytes(self.d); 2],
            mins: [0.0; 2],
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.bsums.iter_mut().for_each(|sum| sum.reverse());
    }
}

impl Quantize for BlockQ8_K {
    fn quantize(x: &[f32]) -> Self {
        let (d, qs) = rounding::eight_bits_256(x);
        let sum = |i: usize| qs[16 * i..][..16].iter().map(|&q| i16::from(q)).sum::<i16>();
        Self { d: d.to_le_bytes(), qs, bsums: std::array::from_fn(|i| sum(i).to_le_bytes()) }
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops_with_encode::<BlockQ8_K>(isa)
}
