//! Plain floats of 16 bits in AVX2: their conversion is an instruction or two, which the compiler does not
//! find by itself.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::x86::{load_16, load_f32, sum_f32};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f16(row: &[u8], x: &[f32]) -> f32 {
    let widen = |eight: &[u8; 16]| _mm256_cvtph_ps(load_16(eight));
    dot(row, x, widen, |bytes| f16::from_le_bytes(bytes).to_f32())
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_bf16(row: &[u8], x: &[f32]) -> f32 {
    let widen = |eight: &[u8; 16]| {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_16(eight))))
    };
    dot(row, x, widen, |bytes| bf16::from_le_bytes(bytes).to_f32())
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot(row: &[u8], x: &[f32], widen_8: impl Fn(&[u8; 16]) -> __m256, widen: impl Fn([u8; 2]) -> f32) -> f32 {
    assert_eq!(row.len(), 2 * x.len(), "one activation for every weight");
    let (row, row_rest) = row.as_chunks::<64>();
    let (x, x_rest) = x.as_chunks::<32>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for (row, x) in row.iter().zip(x) {
        let eights = row.as_chunks::<16>().0.iter().zip(x.as_chunks::<8>().0);
        for (sum, (weights, x)) in sums.iter_mut().zip(eights) {
            *sum = _mm256_fmadd_ps(widen_8(weights), load_f32(x), *sum);
        }
    }
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let mut total = sum_f32(sum);
    for (weight, x) in row_rest.as_chunks::<2>().0.iter().zip(x_rest) {
        total += widen(*weight) * x;
    }
    total
}
