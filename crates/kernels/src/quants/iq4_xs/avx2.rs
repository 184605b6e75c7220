//! IQ4_XS in AVX2.

use std::arch::x86_64::{_mm256_mul_ps, _mm256_set1_ps};

use super::BlockIQ4_XS;
use crate::activations::Q8Block;
use crate::block::{blocks, by_few, of_tokens};
use crate::quants::iq4_nl::LEVELS;
use crate::x86::{Sums, dot_signed, half, levels, nibbles, totals};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let row = blocks(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<const N: usize>(row: &[BlockIQ4_XS], x: &[Q8Block]) -> [f32; N] {
    assert_eq!(x.len(), N * 8 * row.len(), "eight activation blocks for every 256 weights");
    let mut sums = [[Sums::zero(); N]; 2];
    let tokens = of_tokens::<_, N, 8>(x, row.len());
    for (b, block) in row.iter().enumerate() {
        let d = half(block.d);
        for (i, qs) in block.qs.iter().enumerate() {
            let scale = _mm256_mul_ps(d, _mm256_set1_ps(block.sub_scale(i).into()));
            let weights = levels(&LEVELS, nibbles(qs));
            for t in 0..N {
                let x = &tokens[t][b][i];
                sums[i % 2][t].add(dot_signed(weights, x), scale, x);
            }
        }
    }
    totals(sums[0], sums[1])
}
