//! Q4_K in AVX2, and the unpacking of its sub-scales, which are also Q5_K's.

use std::arch::x86_64::*;

use super::BlockQ4_K;
use crate::activations::Q8Block;
use crate::block::{blocks, by_few, of_tokens};
use crate::x86::{Sums, dot_unsigned, halves, load_32, prefetch_after, totals};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let row = blocks(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<const N: usize>(row: &[BlockQ4_K], x: &[Q8Block]) -> [f32; N] {
    assert_eq!(x.len(), N * 8 * row.len(), "eight activation blocks for every 256 weights");
    let (mut even, mut odd) = ([Sums::zero(); N], [Sums::zero(); N]);
    let low = _mm256_set1_epi8(15);
    let tokens = of_tokens::<_, N, 8>(x, row.len());
    for (b, block) in row.iter().enumerate() {
        let scales = scale_offsets(halves(block.d, block.dmin), &block.scales);
        for (i, qs) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            prefetch_after(qs);
            let qs = load_32(qs);
            let first = _mm256_and_si256(qs, low);
            let second = _mm256_and_si256(_mm256_srli_epi16::<4>(qs), low);
            for t in 0..N {
                let x = &tokens[t][b].as_chunks::<2>().0[i];
                even[t].add_with_offset(dot_unsigned(first, &x[0]), scales[2 * i], &x[0]);
                odd[t].add_with_offset(dot_unsigned(second, &x[1]), scales[2 * i + 1], &x[1]);
            }
        }
    }
    totals(even, odd)
}

/// For each 32 weights `d · s` in lane 0 and `−dmin · m` in lane 1, from `d` and `dmin` in these lanes
/// and the 12 packed bytes that the scalar `scale_min` describes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::quants) fn scale_offsets(d_dmin: __m128, packed: &[u8; 12]) -> [__m128; 8] {
    let fours = packed.as_chunks::<4>().0;
    let (a, b, c) =
        (u32::from_le_bytes(fours[0]), u32::from_le_bytes(fours[1]), u32::from_le_bytes(fours[2]));
    let scales = [a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4];
    let mins = [b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4];
    let d = _mm_mul_ps(d_dmin, _mm_setr_ps(1.0, -1.0, 0.0, 0.0));
    let d = _mm256_set_m128(_mm_movelh_ps(d, d), _mm_movelh_ps(d, d));
    let mut out = [_mm_setzero_ps(); 8];
    for (four, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let scales = _mm_cvtsi32_si128(scales[four].cast_signed());
        let mins = _mm_cvtsi32_si128(mins[four].cast_signed());
        let pairs = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpacklo_epi8(scales, mins)));
        let pairs = _mm256_mul_ps(pairs, d);
        let (first, second) = (_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
        let zero = _mm_setzero_ps();
        *out = [
            _mm_movelh_ps(first, zero),
            _mm_movehl_ps(zero, first),
            _mm_movelh_ps(second, zero),
            _mm_movehl_ps(zero, second),
        ];
    }
    out
}
