//! Q4_1 in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ4_1;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockQ4_1; 8]| {
        let bytes = fours_of_lanes(load_each(|i| &blocks[i].qs), |block, _| 4 * block);
        let quants = nibbles_in_place(bytes, |_, half| half == 1);
        let (d, m) = lanes_of_pairs(pairs_of_halves(blocks));
        let d = _mm512_mul_ps(d, by_half(1.0, 1.0 / 16.0));
        Weights::with_mins(quants, d, minus(m))
    });
}
