//! Plain floats in AVX2.

use std::arch::x86_64::*;

use half::f16;

use crate::x86::{load_f32, sum_f32};

/// Half precision: the conversion is one instruction, which the compiler does not find by itself.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f16(row: &[u8], x: &[f32]) -> f32 {
    assert_eq!(row.len(), 2 * x.len(), "one activation for every weight");
    let (row, row_rest) = row.as_chunks::<2>().0.as_chunks::<32>();
    let (x, x_rest) = x.as_chunks::<32>();
    let mut sums = [_mm256_setzero_ps(); 4];
    for (row, x) in row.iter().zip(x) {
        let (row, x) = (row.as_flattened().as_chunks::<16>().0, x.as_chunks::<8>().0);
        for (i, sum) in sums.iter_mut().enumerate() {
            let weights = _mm256_cvtph_ps(crate::x86::load_16(&row[i]));
            *sum = _mm256_fmadd_ps(weights, load_f32(&x[i]), *sum);
        }
    }
    let sum = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
    let rest = row_rest.iter().zip(x_rest).map(|(w, x)| f16::from_le_bytes(*w).to_f32() * x);
    sum_f32(sum) + rest.sum::<f32>()
}
