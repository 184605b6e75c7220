//! The dot product of any format in AVX2: plain loops unpack the weights, and instructions multiply them.
//!
//! Left to itself the compiler vectorises the products of some formats and not of others, depending on
//! how the loops that unpack them turn out.

use std::arch::x86_64::*;

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::{QuantBlock, Unpacked, blocks};
use crate::quants::bits::word;
use crate::x86::{dot_signed, sum_f32};

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot<B: QuantBlock>(row: &[u8], x: &[Q8Block]) -> f32 {
    let (row, per_block) = (blocks::<B>(row), const { B::TYPE.block_len() / Q8_LEN });
    assert_eq!(x.len(), row.len() * per_block, "one activation block for every 32 weights");
    let (mut products, mut mins) = (_mm256_setzero_ps(), 0.0);
    for (block, x) in row.iter().zip(x.chunks_exact(per_block)) {
        for (i, x) in x.iter().enumerate() {
            let weights = block.unpack(i);
            let dots = _mm256_cvtepi32_ps(dot_signed(load(&weights.quants), x));
            products = _mm256_fmadd_ps(dots, scales(&weights, x), products);
            if weights.mins != [0.0; 2] {
                let min = |half: usize| weights.mins[half] * f32::from(x.sums[half]);
                mins += x.scale * (min(0) + min(1));
            }
        }
    }
    sum_f32(products) - mins
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
