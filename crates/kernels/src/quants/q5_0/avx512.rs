//! Q5_0 in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ5_0;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockQ5_0; 8]| {
        let bytes = fours_of_lanes(load_each(|i| &blocks[i].qs), |block, _| 4 * block);
        let quants = fifth_bits(nibbles(bytes, |_, half| half == 1), |i| blocks[i].qh);
        let d = lanes_of_blocks(halves(|i| blocks[i].d));
        Weights::raised(quants, _mm512_set1_epi8(112), d)
    });
}
