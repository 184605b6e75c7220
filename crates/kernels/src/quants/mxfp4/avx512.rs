//! MXFP4 in AVX-512.

use std::arch::x86_64::*;

use super::{BlockMXFP4, DOUBLED_E2M1};
use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], out: &mut [f32]) {
    dot_rows(rows, x, out, |sum, blocks: &[BlockMXFP4; 8], x| {
        let pair = |i: usize| levels(&RAISED, nibbles(&blocks[i].qs, &blocks[i + 1].qs));
        let dots = dots_less(_mm512_set1_ps(12.0), [pair(0), pair(2), pair(4), pair(6)], x);
        let d = lanes_of_blocks(half_e8m0(bytes(|i| blocks[i].e)));
        _mm512_fmadd_ps(dots, _mm512_mul_ps(d, load_f32(&x.scales)), sum)
    });
}

/// The levels plus 12.
pub(in crate::quants) const RAISED: [u8; 16] = raised(&DOUBLED_E2M1, 12);

/// Half of 2^(e − 127), as the scalar function of the name.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn half_e8m0(e: __m256i) -> __m256 {
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
    let is_subnormal = _mm256_cmplt_epi32_mask(e, _mm256_set1_epi32(2));
    _mm256_castsi256_ps(_mm256_mask_mov_epi32(normal, is_subnormal, subnormal))
}
