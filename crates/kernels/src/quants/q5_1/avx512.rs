//! Q5_1 in AVX-512.

use super::BlockQ5_1;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockQ5_1; 8]| {
        let pair = |i: usize| {
            let [first, second] = [&blocks[i], &blocks[i + 1]];
            fifth_bits(nibbles(&first.qs, &second.qs), first.qh, second.qh)
        };
        let (d, m) = lanes_of_pairs(pairs_of_halves(blocks));
        Weights::<true>::new([pair(0), pair(2), pair(4), pair(6)], d, minus(m))
    });
}
