//! Quantization of activations in AVX-512, eight blocks at a time into a group.
//!
//! The largest magnitudes of the blocks are found as dot products are summed, by transposing, and so are in
//! the order of the group's lanes.

use std::arch::x86_64::*;

use super::{GROUP_BLOCKS, Q8_LEN, Q8Group, lane, quantize_block};
use crate::x86_512::{by_lane, dots, dwords, load_f32};

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn quantize(x: &[[f32; Q8_LEN]], groups: &mut [Q8Group]) {
    let (whole, rest) = x.as_chunks::<GROUP_BLOCKS>();
    let (groups, pairs) = groups.split_at_mut(whole.len());
    for (x, group) in whole.iter().zip(groups) {
        quantize_group(x.each_ref(), group);
    }
    for (x, group) in rest.chunks(2).zip(pairs) {
        let (first, second) = (&x[0], x.get(1).unwrap_or(&[0.0; Q8_LEN]));
        quantize_group([first, second, first, second, first, second, first, second], group);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quantize_group(x: [&[f32; Q8_LEN]; GROUP_BLOCKS], group: &mut Q8Group) {
    let largest = largest_bits(x);
    let scales = _mm512_div_ps(_mm512_castsi512_ps(largest), _mm512_set1_ps(127.0));
    // As `step` has it: 0 where a scale is too small.
    let is_step = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scales, _mm512_set1_ps(f32::MIN_POSITIVE));
    let is_finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(scales, _mm512_set1_ps(f32::INFINITY));
    if is_finite != 0xffff {
        // The conversion to integers makes something else of a NaN here.
        for (i, x) in x.into_iter().enumerate() {
            group.set(i, &quantize_block(x));
        }
        return;
    }
    let scales = _mm512_maskz_mov_ps(is_step, scales);
    let inverses = _mm512_maskz_div_ps(is_step, _mm512_set1_ps(1.0), scales);
    let mut pairs = [_mm512_setzero_si512(); 4];
    for (i, x) in x.as_chunks::<2>().0.iter().enumerate() {
        let round = |x: &[f32; 16], block: usize| {
            let inverse = _mm512_permutexvar_ps(_mm512_set1_epi32(lane(2 * i + block, 0) as i32), inverses);
            _mm512_cvtps_epi32(_mm512_mul_ps(load_f32(x), inverse))
        };
        let [[a, b], [c, d]] = [x[0].as_chunks::<16>().0, x[1].as_chunks::<16>().0] else {
            unreachable!("32 are twice 16")
        };
        let first = _mm512_packs_epi32(round(a, 0), round(b, 0));
        let second = _mm512_packs_epi32(round(c, 1), round(d, 1));
        // Packing works on each quarter of the registers, which leaves the fours in another order.
        let order = dwords(|i| (i % 4 * 4 + i / 4) as u32);
        pairs[i] = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(first, second));
    }
    for (quants, to) in by_lane(pairs).into_iter().zip(&mut group.quants) {
        store_i8(to, quants);
    }
    store_f32(&mut group.scales, scales);
    let sums = dots(_mm512_setzero_si512(), [_mm512_set1_epi8(1); 4], group);
    store_f32(&mut group.sums, sums);
    let offsets = _mm512_cvtps_epi32(_mm512_mul_ps(sums, _mm512_set1_ps(-128.0)));
    // SAFETY: writes the 64 bytes of the array, at any alignment.
    unsafe { _mm512_storeu_si512(group.offsets.as_mut_ptr().cast(), offsets) };
}

/// The bits of the largest magnitude of each lane's block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn largest_bits(x: [&[f32; Q8_LEN]; GROUP_BLOCKS]) -> __m512i {
    let sixteen = |i: usize| {
        let [first, second] = x[i].as_chunks::<16>().0 else { unreachable!("32 are twice 16") };
        let bits = |x| _mm512_and_si512(_mm512_castps_si512(load_f32(x)), _mm512_set1_epi32(i32::MAX));
        _mm512_max_epu32(bits(first), bits(second))
    };
    // Eight numbers of a block, then eight of the next.
    let pair = |i: usize| {
        let (first, second) = (sixteen(i), sixteen(i + 1));
        let low = _mm512_inserti64x4::<1>(first, _mm512_castsi512_si256(second));
        _mm512_max_epu32(low, _mm512_shuffle_i64x2::<0b11_10_11_10>(first, second))
    };
    let (a, b, c, d) = (pair(0), pair(2), pair(4), pair(6));
    let ab = _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_max_epu32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let halves = _mm512_max_epu32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    _mm512_max_epu32(halves, _mm512_shuffle_i64x2::<0b10_11_00_01>(halves, halves))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store_i8(out: &mut [[i8; 4]; 16], x: __m512i) {
    // SAFETY: writes the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn store_f32(out: &mut [f32; 16], x: __m512) {
    // SAFETY: writes the 16 floats of the reference, at any alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
}
