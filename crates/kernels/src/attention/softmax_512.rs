//! The softmax of a step in AVX-512: eight registers from scores to weights.

use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;
use std::mem::transmute;
use std::ops::Range;

use super::POSITIONS;
use super::softmax::Softmax;

/// [`Softmax::weigh`], in the same order and with the same roundings.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn weigh(scores: &mut [f32; POSITIONS], visible: Range<usize>) -> Softmax {
    if visible.is_empty() {
        scores.fill(0.0);
        return Softmax::NONE;
    }
    let seen = (u128::MAX << visible.start) & (u128::MAX >> (POSITIONS - visible.end));
    let mask = |register: usize| (seen >> (16 * register)) as __mmask16;
    let registers = scores.as_chunks_mut::<16>().0;
    let some = visible.start / 16..visible.end.div_ceil(16);
    let none = _mm512_set1_ps(f32::NEG_INFINITY);
    // SAFETY: reads from the 16 floats of the reference.
    let load = |x: &[f32; 16], mask| unsafe { _mm512_mask_loadu_ps(none, mask, x.as_ptr()) };
    let mut largest = none;
    for i in some.clone() {
        largest = _mm512_max_ps(load(&registers[i], mask(i)), largest);
    }
    let largest = _mm512_reduce_max_ps(largest);
    let mut sum = _mm512_setzero_ps();
    for (i, weights) in registers.iter_mut().enumerate() {
        let mut weight = _mm512_setzero_ps();
        if some.contains(&i) {
            let shifted = _mm512_sub_ps(load(weights, mask(i)), _mm512_set1_ps(largest));
            weight = _mm512_maskz_mov_ps(mask(i), exp(shifted));
            sum = _mm512_add_ps(sum, weight);
        }
        // SAFETY: writes the 16 floats of the reference.
        unsafe { _mm512_storeu_ps(weights.as_mut_ptr(), weight) };
    }
    Softmax { largest, sum: _mm512_reduce_add_ps(sum) }
}

/// [`activation::exp`](crate::activation::exp) of x ≤ 0, term by term.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let (mul, add, sub) = (_mm512_mul_ps, _mm512_add_ps, _mm512_sub_ps);
    let c = _mm512_set1_ps;
    let x = _mm512_max_ps(x, c(-87.0));
    let round = c(12_582_912.0);
    let shifted = add(mul(x, c(LOG2_E)), round);
    let n = sub(shifted, round);
    let r = sub(sub(x, mul(n, c(0.693_145_75))), mul(n, c(1.428_606_8e-6)));
    let mut p = add(c(1.0 / 120.0), mul(r, c(1.0 / 720.0)));
    for coefficient in [1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = add(c(coefficient), mul(r, p));
    }
    let exponent = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
    mul(p, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
}

/// Rounds weights to pairs of bfloat16, each in the place of a float.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn pack(weights: &mut [f32; POSITIONS]) {
    for i in 0..POSITIONS / 32 {
        let (from, to) = (&weights[32 * i..][..32], 16 * i);
        // SAFETY: reads 32 floats of the slice.
        let (low, high) = unsafe { (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from[16..].as_ptr())) };
        let pairs = _mm512_cvtne2ps_pbh(high, low);
        // SAFETY: writes 16 floats of the slice; the types have the same bits.
        unsafe { _mm512_storeu_ps(weights[to..][..16].as_mut_ptr(), transmute::<__m512bh, __m512>(pairs)) };
    }
}
