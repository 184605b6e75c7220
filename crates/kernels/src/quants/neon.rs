//! The dot products of any format in NEON: plain loops unpack the weights, and instructions multiply them.

use crate::activations::Q8Block;
use crate::block::QuantBlock;
use crate::neon::{dot_blocks, load_i8};

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    dot_blocks(row, x, out, |sums, block: &B, i, x| {
        let weights = block.unpack(i);
        let quants = load_i8(&weights.quants);
        if B::HALVES {
            sums.add_halves(quants, weights.scales, x);
        } else {
            sums.add(quants, weights.scales[0], x);
        }
        if B::MINS {
            sums.subtract_halves(weights.mins, x);
        }
    });
}
