//! What the AVX-512 kernels of single rows share: loads, and the way from eight blocks of quants to a sum.
//!
//! Eight blocks meet one group of activations in four registers of 64 quants. Adding these up by
//! [transposing](dots) leaves one register with 16 integers, one for each 16 weights, in an order that
//! every other number of the step is brought to:
//!
//! ```text
//! lane        0 1 2 3   4 5 6 7   8 9 10 11   12 13 14 15
//! block       0 2 4 6   0 2 4 6   1 3  5  7    1  3  5  7
//! its half    0 0 0 0   1 1 1 1   0 0  0  0    1  1  1  1
//! ```
//!
//! So scales are multiplied once for 256 weights, and formats with a scale for each 16 weights cost no
//! more than others. Quants are unsigned, for the instruction wants one side so; what that adds is taken
//! off with the sums of the activations.

use std::arch::x86_64::*;

use crate::activations::{GROUP_BLOCKS, Q8Group};
use crate::x86::prefetch_after;

/// Which of eight blocks a lane of the sums belongs to.
pub(crate) const fn block_of(lane: usize) -> usize {
    2 * (lane % 4) + lane / 8
}

/// Which half of that block.
pub(crate) const fn half_of(lane: usize) -> usize {
    lane / 4 % 2
}

/// The 64 bytes from `at` on, those after the end of `bytes` as zeros.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load_64(bytes: &[u8], at: usize) -> __m512i {
    let bytes = bytes.get(at..).unwrap_or_default();
    if bytes.is_empty() {
        return _mm512_setzero_si512();
    }
    let mask = if bytes.len() >= 64 { u64::MAX } else { (1 << bytes.len()) - 1 };
    // SAFETY: reads the bytes whose bit is set, which are those of the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

/// A register from 32 numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn words(words: &[u16; 32]) -> __m512i {
    // SAFETY: reads the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// A register from 16 numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn dwords(dwords: &[u32; 16]) -> __m512i {
    // SAFETY: reads the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_loadu_si512(dwords.as_ptr().cast()) }
}

/// 64 numbers of 4 bits: of the lower 16 bytes of each half the low nibbles, of the upper the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn nibbles(bytes: __m512i) -> __m512i {
    let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    _mm512_and_si512(_mm512_srlv_epi64(bytes, shifts), _mm512_set1_epi8(15))
}

/// Where [`nibbles`] wants the 16 bytes of two blocks: both twice, the first from word `first` on, the
/// second `block_words` later.
pub(crate) const fn nibble_words(first: usize, block_words: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (first + i / 16 * block_words + i % 8) as u16;
        i += 1;
    }
    index
}

/// The places of the half-precision numbers of each lane's block, and in the upper half of the numbers
/// next to these, in two registers of which the second begins `second` blocks after the first.
pub(crate) const fn half_words(block_words: usize, second: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        let (block, next) = (block_of(i % 16), i / 16);
        let place = if block < second { block * block_words } else { 32 + (block - second) * block_words };
        index[i] = (place + next) as u16;
        i += 1;
    }
    index
}

/// The half-precision numbers that begin each lane's block, and in the upper half those next to them, from
/// registers that begin with two blocks each, save that the last has its first at word `LAST`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn halves_of_pairs<const BLOCK_WORDS: usize, const LAST: usize>(pairs: [__m512i; 4]) -> __m512i {
    let low = _mm512_permutex2var_epi16(pairs[0], words(&const { pair_words(BLOCK_WORDS, 0) }), pairs[1]);
    let high = _mm512_permutex2var_epi16(pairs[2], words(&const { pair_words(BLOCK_WORDS, LAST) }), pairs[3]);
    // Lanes 2 and 3 of each four belong to the last two registers.
    _mm512_mask_blend_epi16(0xcccc_cccc, low, high)
}

/// The places of each lane's numbers in two registers of two blocks, of which the second register has its
/// first block at word `second`.
const fn pair_words(block_words: usize, second: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        let (block, next) = (block_of(i % 16), i / 16);
        let start = if block / 2 % 2 == 0 { 0 } else { 32 + second };
        index[i] = (start + block % 2 * block_words + next) as u16;
        i += 1;
    }
    index
}

/// The lower 16 numbers in half precision as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn lower_halves(halves: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_castsi512_si256(halves))
}

/// The upper 16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn upper_halves(halves: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves))
}

/// Products of 256 unsigned quants with a group, summed by sixteens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dots(quants: [__m512i; 4], x: &Q8Group) -> __m512i {
    let [a, b, c, d] = quants;
    let dot = |weights, i: usize| {
        // SAFETY: reads 64 of the 256 bytes of the array, for i < 4.
        let x = unsafe { _mm512_loadu_si512(x.quants.as_flattened()[64 * i..][..64].as_ptr().cast()) };
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, x)
    };
    let (a, b, c, d) = (dot(a, 0), dot(b, 1), dot(c, 2), dot(d, 3));
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// The two sums of each lane's block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sums(x: &Q8Group) -> __m512i {
    // SAFETY: reads the 32 bytes of the array, at any alignment.
    let sums = unsafe { _mm256_loadu_si256(x.sums.as_ptr().cast()) };
    _mm512_permutexvar_epi32(dwords(&BLOCKS), _mm512_castsi256_si512(sums))
}

/// `dots` plus `factor` times the sum of each lane's 16 activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn add_sums(dots: __m512i, factor: i16, x: &Q8Group) -> __m512i {
    let factors = _mm512_and_si512(dwords(&HALVES), _mm512_set1_epi16(factor));
    _mm512_dpwssd_epi32(dots, sums(x), factors)
}

/// The step of the activations of each lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn scales(x: &Q8Group) -> __m512 {
    let scales = _mm512_castps256_ps512(crate::x86::load_f32(&x.scales));
    _mm512_permutexvar_ps(dwords(&BLOCKS), scales)
}

const BLOCKS: [u32; 16] = {
    let mut blocks = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        blocks[lane] = block_of(lane) as u32;
        lane += 1;
    }
    blocks
};

/// Of the two sums of a block, the one that belongs to the lane.
const HALVES: [u32; 16] = {
    let mut masks = [0; 16];
    let mut lane = 0;
    while lane < 16 {
        masks[lane] = 0xffff << (16 * half_of(lane));
        lane += 1;
    }
    masks
};

/// The dot product of a row of blocks of 32 weights, eight of which are `BYTES` long: `add` adds eight
/// blocks, or what is left of a row, to the sum.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dot_groups<const BYTES: usize>(
    row: &[u8],
    x: &[Q8Group],
    add: impl Fn(__m512, &[u8], &Q8Group) -> __m512,
) -> f32 {
    let (groups, rest) = row.as_chunks::<BYTES>();
    assert!(rest.len().is_multiple_of(BYTES / GROUP_BLOCKS), "a row is a whole number of blocks");
    assert_eq!(x.len(), row.len().div_ceil(BYTES), "one group of activations for every 256 weights");
    let mut sum = _mm512_setzero_ps();
    for (group, x) in groups.iter().zip(x) {
        for line in group.chunks(64) {
            prefetch_after(line);
        }
        sum = add(sum, group, x);
    }
    if let [.., x] = x
        && !rest.is_empty()
    {
        sum = add(sum, rest, x);
    }
    _mm512_reduce_add_ps(sum)
}
