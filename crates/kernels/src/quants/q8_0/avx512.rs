//! Q8_0 in AVX-512.

use std::arch::x86_64::*;

use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(row: &[u8], x: &[Q8Group]) -> f32 {
    dot_groups::<272>(row, x, |sum, blocks, x| {
        let loads = [load_64(blocks, 0), load_64(blocks, 68), load_64(blocks, 136), load_64(blocks, 204)];
        let quants = [
            quants(loads[0], load_64(blocks, 4)),
            quants(loads[1], load_64(blocks, 72)),
            quants(loads[2], load_64(blocks, 140)),
            quants(loads[3], load_64(blocks, 208)),
        ];
        let d = lower_halves(halves_of_pairs::<17, 0>(loads));
        let products = add_sums(dots(quants, x), -128, x);
        let scales = _mm512_mul_ps(d, scales(x));
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scales, sum)
    })
}

/// The quants of two blocks plus 128, from the first 64 of their 68 bytes and the last 64.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn quants(first: __m512i, last: __m512i) -> __m512i {
    const WORDS: [u16; 32] = {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 32 {
            // The second block's quants begin at byte 36, which is the 32nd of `last`.
            index[i] = (if i < 16 { 1 + i } else { 32 + i }) as u16;
            i += 1;
        }
        index
    };
    let quants = _mm512_permutex2var_epi16(first, words(&WORDS), last);
    _mm512_xor_si512(quants, _mm512_set1_epi8(-128))
}
