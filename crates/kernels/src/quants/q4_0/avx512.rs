//! Q4_0 in AVX-512.

use std::arch::x86_64::*;

use crate::activations::Q8Group;
use crate::x86_512::*;

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn dot(row: &[u8], x: &[Q8Group]) -> f32 {
    dot_groups::<144>(row, x, |sum, blocks, x| {
        // Two blocks each; the last begins earlier, to end where the blocks do.
        let loads = [load_64(blocks, 0), load_64(blocks, 36), load_64(blocks, 72), load_64(blocks, 80)];
        let (pair, last) = (words(&const { nibble_words(1, 9) }), words(&const { nibble_words(15, 9) }));
        let quants = [
            nibbles(_mm512_permutexvar_epi16(pair, loads[0])),
            nibbles(_mm512_permutexvar_epi16(pair, loads[1])),
            nibbles(_mm512_permutexvar_epi16(pair, loads[2])),
            nibbles(_mm512_permutexvar_epi16(last, loads[3])),
        ];
        let halves = words(&const { half_words(9, 4) });
        let d = lower_halves(_mm512_permutex2var_epi16(loads[0], halves, loads[2]));
        let products = add_sums(dots(quants, x), -8, x);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), _mm512_mul_ps(d, scales(x)), sum)
    })
}
