//! Q4_0 in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ4_0;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockQ4_0; 8]| {
        let bytes = fours_of_lanes(load_each(|i| &blocks[i].qs), |block, _| 4 * block);
        let quants = nibbles_in_place(bytes, |_, half| half == 1);
        let d = halves_of_18(blocks);
        let d = _mm512_mul_ps(d, by_half(1.0, 1.0 / 16.0));
        // The high nibbles' 8 is 16 times too large as well, 128.
        Weights::raised(quants, lanes_of(|_, half| if half == 0 { 0x7878_7878 } else { 0 }), d)
    });
}
