//! Q5_1 in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ5_1;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |sum, blocks: &[BlockQ5_1; 8], x| {
        let pair = |i: usize| {
            let [first, second] = [&blocks[i], &blocks[i + 1]];
            fifth_bits(nibbles(&first.qs, &second.qs), first.qh, second.qh)
        };
        let dots = dots([pair(0), pair(2), pair(4), pair(6)], x);
        let (d, m) = lanes_of_pairs(pairs_of_halves(blocks));
        let product = _mm512_fmadd_ps(load_f32(&x.sums), m, _mm512_mul_ps(dots, d));
        _mm512_fmadd_ps(product, load_f32(&x.scales), sum)
    });
}
