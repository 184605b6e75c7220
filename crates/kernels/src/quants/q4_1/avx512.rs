//! Q4_1 in AVX-512.

use std::arch::x86_64::*;

use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(row: &[u8], x: &[Q8Group]) -> f32 {
    dot_groups::<160>(row, x, |sum, blocks, x| {
        // Two blocks each; the last begins earlier, to end where the blocks do.
        let loads = [load_64(blocks, 0), load_64(blocks, 40), load_64(blocks, 80), load_64(blocks, 96)];
        let (pair, last) = (words(&const { nibble_words(2, 10) }), words(&const { nibble_words(14, 10) }));
        let quants = [
            nibbles(_mm512_permutexvar_epi16(pair, loads[0])),
            nibbles(_mm512_permutexvar_epi16(pair, loads[1])),
            nibbles(_mm512_permutexvar_epi16(pair, loads[2])),
            nibbles(_mm512_permutexvar_epi16(last, loads[3])),
        ];
        let halves = words(&const { half_words(10, 4) });
        let halves = _mm512_permutex2var_epi16(loads[0], halves, loads[2]);
        let (d, m) = (lower_halves(halves), upper_halves(halves));
        let products = _mm512_mul_ps(_mm512_cvtepi32_ps(dots(quants, x)), d);
        let offsets = _mm512_cvtepi32_ps(add_sums(_mm512_setzero_si512(), 1, x));
        _mm512_fmadd_ps(_mm512_fmadd_ps(offsets, m, products), scales(x), sum)
    })
}
