//! Q8_0 in AVX2.

use super::BlockQ8_0;
use crate::activations::Q8Block;
use crate::x86::{dot_blocks, dot_signed, half, load_i8};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &BlockQ8_0, x| {
        sums.add(dot_signed(load_i8(&block.qs), x), half(block.d), x);
    });
}
