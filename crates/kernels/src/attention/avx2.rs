//! Attention's loops over f16 in AVX2: several keys or columns at a time, each with a sum of its own in
//! a register.

use std::arch::x86_64::*;

use half::f16;

use crate::x86::{load_f16, load_f32, store_f32, sum_f32};

/// Keys under way at a time.
const KEYS: usize = 4;
/// Registers of value columns under way at a time.
const COLUMNS: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn scores(q: &[f32], keys: &[f16], scores: &mut [f32]) {
    let mut scores = scores.chunks_mut(KEYS);
    for keys in keys.chunks(KEYS * q.len()) {
        let Some(scores) = scores.next() else { return };
        match scores.as_mut_array::<KEYS>() {
            Some(scores) => *scores = dots(q, keys),
            None => {
                scores.iter_mut().zip(keys.chunks_exact(q.len())).for_each(|(s, key)| [*s] = dots(q, key))
            }
        }
    }
}

/// `q · key` of `N` keys, one after another in `keys`. A key's sum is the same whatever `N`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots<const N: usize>(q: &[f32], keys: &[f16]) -> [f32; N] {
    let (q, q_rest) = q.as_chunks::<8>();
    let key_len = 8 * q.len() + q_rest.len();
    let mut split = [(&[] as &[[f16; 8]], &[] as &[f16]); N];
    for (split, key) in split.iter_mut().zip(keys.chunks_exact(key_len)) {
        *split = key.as_chunks::<8>();
    }
    let mut sums = [_mm256_setzero_ps(); N];
    for (i, q) in q.iter().enumerate() {
        let q = load_f32(q);
        for (sum, (key, _)) in sums.iter_mut().zip(&split) {
            *sum = _mm256_fmadd_ps(load_f16(&key[i]), q, *sum);
        }
    }
    let mut dots = [0.0; N];
    for ((dot, sum), (_, rest)) in dots.iter_mut().zip(sums).zip(split) {
        *dot = sum_f32(sum);
        for (k, q) in rest.iter().zip(q_rest) {
            *dot += k.to_f32() * q;
        }
    }
    dots
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
    for (value, weight) in values.chunks_exact(row_len).zip(weights) {
        rest.iter_mut().zip(&value[done..]).for_each(|(out, v)| *out += weight * v.to_f32());
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
        let weight = _mm256_set1_ps(*weight);
        for (sum, value) in sums.iter_mut().zip(value[first..].as_chunks::<8>().0) {
            *sum = _mm256_fmadd_ps(weight, load_f16(value), *sum);
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        store_f32(out, sum);
    }
}
