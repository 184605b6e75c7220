//! IQ4_XS in AVX-512.

use std::arch::x86_64::*;

use super::BlockIQ4_XS;
use crate::activations::Q8Group;
use crate::quants::iq4_nl::avx512::RAISED;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(rows: &[u8], x: &[Q8Group], n_tokens: usize, out: &mut [f32]) {
    dot_rows(rows, x, n_tokens, out, |[block]: &[BlockIQ4_XS; 1]| {
        let bytes = fours_of_lanes(load_each(|i| &block.qs[i]), |block, _| 4 * block);
        let scales = _mm512_mul_ps(half(block.d), sub_scales(block));
        Weights::new(levels(&RAISED, nibbles(bytes, |_, half| half == 1)), scales)
    });
}

/// The scale of each lane's block, −32 … 31.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sub_scales(block: &BlockIQ4_XS) -> __m512 {
    let low = _mm512_set1_epi32(u32::from_le_bytes(block.scales_l).cast_signed());
    let high = _mm512_set1_epi32(u16::from_le_bytes(block.scales_h).into());
    let blocks = lanes_of(|block, _| block as u32);
    let low = _mm512_srlv_epi32(low, _mm512_slli_epi32::<2>(blocks));
    let high = _mm512_slli_epi32::<4>(_mm512_srlv_epi32(high, _mm512_slli_epi32::<1>(blocks)));
    let low = _mm512_and_si512(low, _mm512_set1_epi32(15));
    let high = _mm512_and_si512(high, _mm512_set1_epi32(0x30));
    _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_or_si512(low, high), _mm512_set1_epi32(32)))
}
