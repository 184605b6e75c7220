//! IQ4_NL in NEON.

use super::{BlockIQ4_NL, LEVELS};
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, levels, load_16, nibbles};
use crate::quants::bits::half;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockIQ4_NL, _, x| {
        sums.add(levels(&LEVELS, nibbles(load_16(&block.qs))), half(block.d), x);
    });
}
