//! Q4_0: 32 weights in 4 bits, `w = d · (q − 8)`.

use half::f16;
use metallic_gguf::GgmlType;

use crate::activations::Q8Block;
use crate::block::{DotQ8, QuantBlock};
use crate::isa::Isa;
use crate::registry::QuantOps;

/// A block: scale, then 16 bytes whose low nibbles are weights 0–15 and high nibbles 16–31.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockQ4_0 {
    d: [u8; 2],
    quants: [u8; 16],
}

const _: () = assert!(size_of::<BlockQ4_0>() == GgmlType::Q4_0.block_bytes());

// SAFETY: two arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockQ4_0 {
    const TYPE: GgmlType = GgmlType::Q4_0;

    fn decode(&self, out: &mut [f32]) {
        let d = f16::from_le_bytes(self.d).to_f32();
        for (i, &q) in self.quants.iter().enumerate() {
            out[i] = d * (f32::from(q & 15) - 8.0);
            out[i + 16] = d * (f32::from(q >> 4) - 8.0);
        }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

impl DotQ8 for BlockQ4_0 {
    fn dot_q8(&self, x: &[Q8Block]) -> f32 {
        let x = &x[0];
        let mut sum = 0i32;
        for (i, &q) in self.quants.iter().enumerate() {
            sum += (i32::from(q & 15) - 8) * i32::from(x.quants[i]);
            sum += (i32::from(q >> 4) - 8) * i32::from(x.quants[i + 16]);
        }
        f16::from_le_bytes(self.d).to_f32() * x.scale * sum as f32
    }
}

pub(super) fn ops(_isa: Isa) -> QuantOps {
    super::scalar_q8::<BlockQ4_0>()
}
