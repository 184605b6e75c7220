//! Q4_0 in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ4_0;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockQ4_0; 8]| {
        let pair = |i: usize| nibbles_in_place(&blocks[i].qs, &blocks[i + 1].qs);
        let d = lanes_of_blocks(halves(|i| blocks[i].d));
        let d = _mm512_mul_ps(d, by_half(1.0, 1.0 / 16.0));
        Weights::<false>::new([pair(0), pair(2), pair(4), pair(6)], d, by_half(8.0, 8.0 * 16.0))
    });
}
