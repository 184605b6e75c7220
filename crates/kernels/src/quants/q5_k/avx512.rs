//! Q5_K in AVX-512.

use super::BlockQ5_K;
use crate::activations::Q8Group;
use crate::quants::q4_k::avx512::{scales_and_mins, weights};
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ5_K; 1]| {
        let bytes = fours_of_lanes(load_128(&block.qs), |block, half| block / 2 * 8 + 4 * half);
        let low = nibbles(bytes, |block, _| block % 2 == 1);
        weights(bits_of_blocks(low, &block.qh, 16), scales_and_mins(block))
    });
}
