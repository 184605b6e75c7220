//! Plain floats of 16 bits in AVX2: their conversion is an instruction or two, which the compiler does not
//! find by itself.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::block::{by_few, of_tokens};
use crate::x86::{load_16, load_f32, sum_f32};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f16(row: &[u8], x: &[f32], out: &mut [f32]) {
    let widen = |eight: &[u8; 16]| _mm256_cvtph_ps(load_16(eight));
    by_few!(x, out, [4, 1], |x| dot(row, x, widen, |bytes| f16::from_le_bytes(bytes).to_f32()));
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_bf16(row: &[u8], x: &[f32], out: &mut [f32]) {
    let widen = |eight: &[u8; 16]| {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_16(eight))))
    };
    by_few!(x, out, [4, 1], |x| dot(row, x, widen, |bytes| bf16::from_le_bytes(bytes).to_f32()));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<const N: usize>(
    row: &[u8],
    x: &[f32],
    widen_8: impl Fn(&[u8; 16]) -> __m256,
    widen: impl Fn([u8; 2]) -> f32,
) -> [f32; N] {
    let row_len = row.len() / 2;
    assert_eq!(x.len(), N * row_len, "one activation for every weight");
    let (row, row_rest) = row.as_chunks::<64>();
    let mut sums = [[_mm256_setzero_ps(); 4]; N];
    let tokens = of_tokens::<_, N, 32>(x, row.len());
    for (i, row) in row.iter().enumerate() {
        for (j, eight) in row.as_chunks::<16>().0.iter().enumerate() {
            let weights = widen_8(eight);
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = &tokens[t][i].as_chunks::<8>().0[j];
                sums[j] = _mm256_fmadd_ps(weights, load_f32(x), sums[j]);
            }
        }
    }
    let mut out = [0.0; N];
    for (t, [a, b, c, d]) in sums.into_iter().enumerate() {
        out[t] = sum_f32(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));
        for (weight, x) in row_rest.as_chunks::<2>().0.iter().zip(&x[t * row_len + 32 * row.len()..]) {
            out[t] += widen(*weight) * x;
        }
    }
    out
}
