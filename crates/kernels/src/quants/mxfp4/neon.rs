//! MXFP4 in NEON.

use super::{BlockMXFP4, DOUBLED_E2M1, half_e8m0};
use crate::activations::Q8Block;
use crate::neon::{dot_blocks, levels, load_16, nibbles};

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockMXFP4, _, x| {
        let weights = levels(&DOUBLED_E2M1, nibbles(load_16(&block.qs)));
        sums.add(weights, half_e8m0(block.e), x);
    });
}
