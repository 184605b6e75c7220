//! The dot products of any format in AVX2: plain loops unpack the weights, and instructions multiply them.
//!
//! Left to itself the compiler vectorises the products of some formats and not of others, depending on
//! how the loops that unpack them turn out.

use std::arch::x86_64::*;

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::{QuantBlock, Unpacked, blocks, by_few};
use crate::quants::bits::word;
use crate::x86::{dot_signed, sum_f32};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block], out: &mut [f32]) {
    let row = blocks::<B>(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x));
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<B: QuantBlock, const N: usize>(row: &[B], x: &[Q8Block]) -> [f32; N] {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    let x_len = row.len() * per_block;
    assert_eq!(x.len(), N * x_len, "one activation block for every 32 weights");
    let (mut products, mut mins) = ([_mm256_setzero_ps(); N], [0.0; N]);
    for (b, block) in row.iter().enumerate() {
        for i in 0..per_block {
            let weights = block.unpack(i);
            let quants = load(&weights.quants);
            for t in 0..N {
                let x = &x[t * x_len + b * per_block + i];
                let dots = _mm256_cvtepi32_ps(dot_signed(quants, x));
                products[t] = _mm256_fmadd_ps(dots, scales(&weights, x), products[t]);
                if weights.mins != [0.0; 2] {
                    let min = |half: usize| weights.mins[half] * f32::from(x.sums[half]);
                    mins[t] += x.scale * (min(0) + min(1));
                }
            }
        }
    }
    let mut out = [0.0; N];
    for t in 0..N {
        out[t] = sum_f32(products[t]) - mins[t];
    }
    out
}

/// 32 bytes that were just written, perhaps eight at a time: a load wider than the stores before it has
/// to wait until those reach the cache.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(quants: &[i8; 32]) -> __m256i {
    let mut eights = [0; 4];
    for (eight, quants) in eights.iter_mut().zip(quants.as_chunks::<8>().0) {
        *eight = word(quants).cast_signed();
    }
    _mm256_setr_epi64x(eights[0], eights[1], eights[2], eights[3])
}

/// The scale of the first 16 products in the lower four lanes, that of the others in the upper four.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales(weights: &Unpacked, x: &Q8Block) -> __m256 {
    let [first, second] = weights.scales;
    _mm256_set_m128(_mm_set1_ps(second * x.scale), _mm_set1_ps(first * x.scale))
}
