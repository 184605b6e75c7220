//! IQ4_XS in NEON.

use super::BlockIQ4_XS;
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, levels, load_16, nibbles};
use crate::quants::bits::half;
use crate::quants::iq4_nl::LEVELS;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockIQ4_XS, i, x| {
        let scale = half(block.d) * f32::from(block.sub_scale(i));
        sums.add(levels(&LEVELS, nibbles(load_16(&block.qs[i]))), scale, x);
    });
}
