//! Q8_1: 32 values in 8 bits, `w = d · q`. ggml keeps activations in it; models don't use it.

use half::f16;
use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Quantize, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, rounding, scalar};
use crate::registry::QuantOps;

/// A block: scale, `d · sum(qs)` (which decoding ignores), then 32 signed bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ8_1 {
    d: [u8; 2],
    s: [u8; 2],
    qs: [i8; 32],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ8_1 {
    const TYPE: GgmlType = GgmlType::Q8_1;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, _i: usize) -> Unpacked {
        Unpacked { quants: self.qs, scales: [bits::half(self.d); 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
        self.s.reverse();
    }
}

impl Quantize for BlockQ8_1 {
    fn quantize(x: &[f32]) -> Self {
        let (d, qs) = rounding::eight_bits(x);
        let sum: i32 = qs.iter().map(|&q| i32::from(q)).sum();
        Self { d: f16::from_f32(d).to_le_bytes(), s: f16::from_f32(sum as f32 * d).to_le_bytes(), qs }
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    scalar::ops_with_encode::<BlockQ8_1>(isa)
}
