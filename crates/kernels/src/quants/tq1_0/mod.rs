//! TQ1_0: 256 ternary weights at 1.69 bits, `w = d · (t − 1)`, five in a byte.

#[cfg(target_arch = "aarch64")]
mod neon;

use metallic_gguf::GgmlType;

use crate::block::{QuantBlock, Unpacked};
use crate::isa::Isa;
use crate::quants::{bits, scalar};
use crate::registry::QuantOps;

/// A block: 48 bytes of five digits, 4 bytes of four, scale.
///
/// A byte is `⌈256 · n / 243⌉` for the number `n` whose base-3 digits are its weights, most significant
/// first. The first 32 bytes give five runs of 32 weights, first digits first; the next 16 five runs of
/// 16; the last 4 four runs of 4.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct BlockTQ1_0 {
    qs: [u8; 32],
    qs_short: [u8; 16],
    qh: [u8; 4],
    d: [u8; 2],
}

// SAFETY: arrays of bytes, repr(C): alignment 1, no padding, every bit pattern valid.
unsafe impl QuantBlock for BlockTQ1_0 {
    const TYPE: GgmlType = GgmlType::TQ1_0;
    const HALVES: bool = false;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(&self, i: usize) -> Unpacked {
        let mut quants = [0; 32];
        let (first, second) = quants.split_at_mut(16);
        match i {
            0..5 => digits(&self.qs, i, &mut quants),
            5 | 6 => {
                digits(&self.qs_short, 2 * (i - 5), first);
                digits(&self.qs_short, 2 * (i - 5) + 1, second);
            }
            _ => {
                digits(&self.qs_short, 4, first);
                for (n, run) in second.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    digits(&self.qh, n, run);
                }
            }
        }
        Unpacked { quants, scales: [bits::half(self.d); 2], mins: [0.0; 2] }
    }

    fn swap_bytes(&mut self) {
        self.d.reverse();
    }
}

/// The `n`-th digit of every byte, less 1.
///
/// A byte is a fixed-point fraction: times 3ⁿ, its whole part dropped, it starts with digit `n`.
#[inline(always)]
fn digits(bytes: &[u8], n: usize, out: &mut [i8]) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    for (out, byte) in out.iter_mut().zip(bytes) {
        let fraction = byte.wrapping_mul(POWERS[n]);
        *out = ((u16::from(fraction) * 3) >> 8) as i8 - 1;
    }
}

pub(super) fn ops(isa: Isa) -> QuantOps {
    with_kernels!(scalar::ops::<BlockTQ1_0>(isa), neon)
}
