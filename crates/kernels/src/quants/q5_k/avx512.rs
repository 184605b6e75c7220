//! Q5_K in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ5_K;
use crate::activations::Q8Group;
use crate::quants::q4_k::avx512::{scales_and_mins, weights};
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ5_K; 1]| {
        let shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
        let high = load_twice(&block.qh);
        let pair = |i: usize| {
            let low = _mm512_srlv_epi64(load_twice(&block.qs.as_chunks().0[i]), shifts);
            let low = _mm512_and_si512(low, _mm512_set1_epi8(15));
            let bit = _mm512_set1_epi8(1 << (2 * i));
            let bit = _mm512_mask_add_epi8(bit, u64::MAX << 32, bit, bit);
            _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(high, bit), low, _mm512_set1_epi8(16))
        };
        weights([pair(0), pair(1), pair(2), pair(3)], scales_and_mins(block))
    });
}
