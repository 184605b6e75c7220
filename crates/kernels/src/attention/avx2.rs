//! Attention's loops over f16 in AVX2: several keys or columns at a time, each with a sum of its own in
//! a register.

use std::arch::x86_64::*;

use half::f16;

use crate::x86::{load_f16, load_f32, store_f32, sum_f32};

/// Registers of value columns under way at a time.
const COLUMNS: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scores(q: &[f32], keys: &[f16], scores: &mut [f32]) {
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let (keys, keys_rest) = keys.split_at(4 * fours.len() * q.len());
    for (scores, keys) in fours.iter_mut().zip(keys.chunks_exact(4 * q.len())) {
        let sums = products::<4>(q, keys);
        *scores = sum_each(sums);
        add_rest(q, keys, scores);
    }
    for (score, key) in rest.iter_mut().zip(keys_rest.chunks_exact(q.len())) {
        let [sum] = products::<1>(q, key);
        *score = sum_f32(sum);
        add_rest(q, key, std::slice::from_mut(score));
    }
}

/// The products of `q` with each of `N` keys, summed by the column modulo 8; without the last columns
/// where there are fewer than 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products<const N: usize>(q: &[f32], keys: &[f16]) -> [__m256; N] {
    let (key_len, q) = (q.len(), q.as_chunks::<8>().0);
    let mut eights = [&[] as &[[f16; 8]]; N];
    for (eights, key) in eights.iter_mut().zip(keys.chunks_exact(key_len)) {
        *eights = &key.as_chunks::<8>().0[..q.len()];
    }
    let mut sums = [_mm256_setzero_ps(); N];
    for (i, q) in q.iter().enumerate() {
        let q = load_f32(q);
        for (sum, key) in sums.iter_mut().zip(&eights) {
            *sum = _mm256_fmadd_ps(load_f16(&key[i]), q, *sum);
        }
    }
    sums
}

/// Adds the products that [`products`] leaves out.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_rest(q: &[f32], keys: &[f16], scores: &mut [f32]) {
    let (done, rest) = (q.len() / 8 * 8, q.as_chunks::<8>().1);
    if rest.is_empty() {
        return;
    }
    for (key, score) in keys.chunks_exact(q.len()).zip(scores) {
        for (k, q) in key[done..].iter().zip(rest) {
            *score += k.to_f32() * q;
        }
    }
}

/// The sum of the 8 lanes of each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_each([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    let mut out = [0.0; 8];
    store_f32(&mut out, _mm256_zextps128_ps256(sums));
    [out[0], out[1], out[2], out[3]]
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn accumulate(weights: &[f32], values: &[f16], out: &mut [f32]) {
    let row_len = out.len();
    let (wide, rest) = out.as_chunks_mut::<{ 8 * COLUMNS }>();
    for (i, out) in wide.iter_mut().enumerate() {
        columns::<COLUMNS>(weights, values, row_len, 8 * COLUMNS * i, out.as_chunks_mut::<8>().0);
    }
    let done = row_len - rest.len();
    let (eights, rest) = rest.as_chunks_mut::<8>();
    for (i, out) in eights.iter_mut().enumerate() {
        columns::<1>(weights, values, row_len, done + 8 * i, std::slice::from_mut(out));
    }
    let done = row_len - rest.len();
    if rest.is_empty() {
        return;
    }
    for (value, weight) in values.chunks_exact(row_len).zip(weights) {
        for (out, v) in rest.iter_mut().zip(&value[done..]) {
            *out += weight * v.to_f32();
        }
    }
}

/// Adds the weighted values' columns from `first` on, `8 N` of them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns<const N: usize>(
    weights: &[f32],
    values: &[f16],
    row_len: usize,
    first: usize,
    out: &mut [[f32; 8]],
) {
    let mut sums = [_mm256_setzero_ps(); N];
    for (sum, out) in sums.iter_mut().zip(&*out) {
        *sum = load_f32(out);
    }
    for (value, weight) in values.chunks_exact(row_len).zip(weights) {
        let Some(value) = value[first..].as_chunks::<8>().0.first_chunk::<N>() else { return };
        let weight = _mm256_set1_ps(*weight);
        for (sum, value) in sums.iter_mut().zip(value) {
            *sum = _mm256_fmadd_ps(weight, load_f16(value), *sum);
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        store_f32(out, sum);
    }
}
