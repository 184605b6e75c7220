//! The dot product of any format in NEON: plain loops unpack the weights, and instructions multiply them.

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::{QuantBlock, blocks};
use crate::neon::{Sums, load_i8};

#[target_feature(enable = "neon,dotprod")]
pub(super) fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block]) -> f32 {
    let (row, per_block) = (blocks::<B>(row), const { B::TYPE.block_len() / Q8_LEN });
    assert_eq!(x.len(), row.len() * per_block, "one activation block for every 32 weights");
    let mut sums = [Sums::zero(); 2];
    for (b, (block, x)) in row.iter().zip(x.chunks_exact(per_block)).enumerate() {
        for (i, x) in x.iter().enumerate() {
            let (weights, sums) = (block.unpack(i), &mut sums[(b * per_block + i) % 2]);
            let quants = load_i8(&weights.quants);
            if B::HALVES {
                sums.add_halves(quants, weights.scales, weights.mins, x);
            } else {
                sums.add(quants, weights.scales[0], weights.mins[0], x);
            }
        }
    }
    sums[0].total(sums[1])
}
