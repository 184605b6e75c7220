//! Q4_K in NEON.

use super::{BlockQ4_K, scale_min};
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, load_16, nibbles};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block]) -> f32 {
    dot_blocks::<_, 8>(row, x, |sums, block: &BlockQ4_K, i, x| {
        let qs = &block.qs.as_chunks::<16>().0[i / 2 * 2..][..2];
        let (first, second) = (nibbles(load_16(&qs[0])), nibbles(load_16(&qs[1])));
        let (scale, min) = scale_min(&block.scales, i);
        let (scale, min) = (half(block.d) * f32::from(scale), half(block.dmin) * f32::from(min));
        sums.add([first[i % 2], second[i % 2]], scale, min, x);
    })
}
