//! Q4_K in NEON.

use super::{BlockQ4_K, scale_min};
use crate::activations::Q8Block;
use crate::neon::{Bytes, bits, dot_blocks};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ4_K, i, x| {
        let (scale, min) = scale_min(&block.scales, i);
        sums.add(four_bits(&block.qs, i), half(block.d) * f32::from(scale), x);
        sums.subtract(half(block.dmin) * f32::from(min), x);
    });
}

/// The low four bits of the `i`-th 32 weights.
#[inline]
#[target_feature(enable = "neon")]
pub(in crate::quants) fn four_bits(qs: &[u8; 128], i: usize) -> Bytes {
    let qs = &qs.as_chunks::<16>().0[i / 2 * 2..][..2];
    [bits(&qs[0], 4 * (i % 2), 15), bits(&qs[1], 4 * (i % 2), 15)]
}
