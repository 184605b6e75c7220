//! Q6_K in AVX-512.

use std::arch::x86_64::*;

use super::BlockQ6_K;
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockQ6_K; 1]| {
        let bytes =
            fours_of_lanes(load_128(&block.ql), |block, half| block / 4 * 16 + block % 2 * 8 + 4 * half);
        let mut quants = nibbles(bytes, |block, _| block % 4 >= 2);
        // Of each byte two bits for each of four blocks, which are turned to where they belong.
        let qh = load_64(&block.qh);
        let high = fours_of_lanes([qh, qh], |block, half| block / 4 * 8 + 4 * half);
        let turns = lanes_of(|block, _| (2 * (block % 4) as u32).wrapping_sub(4) % 32);
        for (quants, high) in quants.iter_mut().zip(high) {
            let high = _mm512_and_si512(_mm512_rorv_epi32(high, turns), _mm512_set1_epi8(0x30));
            *quants = _mm512_or_si512(*quants, high);
        }
        let scales = _mm512_mul_ps(half(block.d), sub_scales(&block.scales));
        Weights::raised(quants, _mm512_set1_epi8(96), scales)
    });
}

/// The scale of each half of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sub_scales(scales: &[i8; 16]) -> __m512 {
    // SAFETY: reads the 16 bytes of the reference, at any alignment.
    let scales = _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
    let lanes = lanes_of(|block, half| (2 * block + half) as u32);
    _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(lanes, scales))
}
