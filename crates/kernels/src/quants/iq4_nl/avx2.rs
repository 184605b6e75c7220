//! IQ4_NL in AVX2.

use super::{BlockIQ4_NL, LEVELS};
use crate::activations::Q8Block;
use crate::x86::{dot_blocks, dot_signed, half, levels, nibbles};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockIQ4_NL, x| {
        let weights = levels(&LEVELS, nibbles(&block.qs));
        sums.add(dot_signed(weights, x), half(block.d), x);
    });
}
