//! Q8_0 in AVX-512.

use super::BlockQ8_0;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockQ8_0; 8]| {
        let pair = |i: usize| signed_pair(&blocks[i].qs, &blocks[i + 1].qs);
        let d = lanes_of_blocks(halves(|i| blocks[i].d));
        Weights::new(by_lane([pair(0), pair(2), pair(4), pair(6)]), d)
    });
}
