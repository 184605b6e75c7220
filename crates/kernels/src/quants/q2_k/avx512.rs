//! Q2_K in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ2_K;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ2_K; 1]| {
        // The pairs of bits stay in place: the four runs of 32 that share bytes are 1, 4, 16 and 64 times too large.
        let qs = load_64(&block.qs);
        let mask = lanes_of(|block, _| 0x0303_0303 << (2 * (block % 4)));
        let mut quants = fours_of_lanes([qs, qs], |block, half| block / 4 * 8 + 4 * half);
        for bytes in &mut quants {
            *bytes = _mm512_and_si512(*bytes, mask);
        }
        let times =
            _mm512_castsi512_ps(lanes_of(|block, _| (1.0 / (1 << (2 * (block % 4))) as f32).to_bits()));
        let packed = load_16(&block.scales);
        let low = _mm_set1_epi8(15);
        let s = floats_of_halves(_mm_and_si128(packed, low));
        let m = floats_of_halves(_mm_and_si128(_mm_srli_epi16::<4>(packed), low));
        let d = _mm512_mul_ps(_mm512_mul_ps(half(block.d), times), s);
        Weights::with_mins(quants, d, _mm512_mul_ps(half(block.dmin), m))
    });
}
