//! Q2_K in NEON.

use super::BlockQ2_K;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, pairs};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ2_K, i, x| {
        let (d, dmin) = (half(block.d), half(block.dmin));
        let [a, b] = block.scales.as_chunks::<2>().0[i];
        let scales = [d * f32::from(a & 15), d * f32::from(b & 15)];
        let mins = [dmin * f32::from(a >> 4), dmin * f32::from(b >> 4)];
        sums.add_halves(pairs(&block.qs.as_chunks().0[i / 4], i % 4), scales, x);
        sums.subtract_halves(mins, x);
    });
}
