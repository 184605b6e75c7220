//! MXFP4 in AVX-512.

use std::arch::x86_64::*;

use super::{BlockMXFP4, DOUBLED_E2M1};
use crate::activations::Q8Group;
use crate::block::as_bytes;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |blocks: &[BlockMXFP4; 8]| {
        let bytes = fours_of_lanes(load_each(|i| &blocks[i].qs), |block, _| 4 * block);
        let d = scales_of_lanes(half_e8m0(exponents(blocks)));
        Weights::new(levels(&RAISED, nibbles(bytes, |_, half| half == 1)), d)
    });
}

/// The levels plus 128.
pub(in crate::quants) const RAISED: [u8; 16] = raised(&DOUBLED_E2M1, 128);

/// The exponents of blocks 0 and 4, two zeros, those of 1 and 5, and so on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn exponents(blocks: &[BlockMXFP4; 8]) -> __m512i {
    let four = |i: usize| match as_bytes(&blocks[i..]).first_chunk() {
        Some(bytes) => load_64(bytes),
        None => unreachable!("four blocks are longer"),
    };
    // A block is 17 bytes, so that the exponent of the second of four is byte 1 of the second 16, and so on.
    let bytes =
        |places: usize| dwords(|i| if i % 4 == places { 0x8080_8000 + i as u32 / 4 } else { 0x8080_8080 });
    let (first, second) = (_mm512_shuffle_epi8(four(0), bytes(0)), _mm512_shuffle_epi8(four(4), bytes(1)));
    _mm512_or_si512(first, second)
}

/// Each lane's number, of such as are in the order of [`exponents`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn scales_of_lanes(numbers: __m512) -> __m512 {
    _mm512_permutexvar_ps(lanes_of(|block, _| (block % 4 * 4 + block / 4) as u32), numbers)
}

/// Half of 2^(e − 127), as the scalar function of the name.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn half_e8m0(e: __m512i) -> __m512 {
    let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
    let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), e);
    let is_subnormal = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, is_subnormal, subnormal))
}
