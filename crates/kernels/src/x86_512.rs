//! What the AVX-512 kernels of single rows share: loads, and the way from 256 quants to a sum.
//!
//! 256 weights meet one group of activations in four registers of 64 quants. Adding these up by
//! [transposing](dots) leaves one register with 16 numbers, one for each 16 weights, in the order that
//! [`lane`](crate::activations::lane) says and the group's own numbers have. So scales are multiplied once
//! for 256 weights, and formats with a scale for each 16 weights cost little more than others. Quants are
//! unsigned, for the instruction wants one side so; what that adds is taken off with the sums of the
//! activations.
//!
//! [Four rows](dot_rows) are taken one after the other, since one stream of weights is what memory serves
//! fastest, and then finished together: what they have beyond a whole number of groups, two blocks of each
//! row at a time, and the sums of their lanes.

use std::arch::x86_64::*;

use crate::activations::{GROUP_BLOCKS, Q8Group, lane, n_groups};
use crate::block::{QuantBlock, as_bytes, blocks, zeroed};
pub(crate) use crate::x86::load_16;
use crate::x86::{load_32, load_i8, prefetch_after};

/// 64 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load_64(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads the 64 bytes of the reference, at any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 16 floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load_f32(x: &[f32; 16]) -> __m512 {
    // SAFETY: reads the 16 floats of the reference, at any alignment.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// The same 32 bytes twice.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load_twice(bytes: &[u8; 32]) -> __m512i {
    _mm512_broadcast_i64x4(load_32(bytes))
}

/// 16 bytes twice, then another 16 twice.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn load_each_twice(first: &[u8; 16], second: &[u8; 16]) -> __m512i {
    let first = _mm512_broadcast_i32x4(load_16(first));
    _mm512_mask_broadcast_i32x4(first, 0xff00, load_16(second))
}

/// The 32 numbers of 4 bits in each of two blocks: the low nibbles, then the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn nibbles(first: &[u8; 16], second: &[u8; 16]) -> __m512i {
    let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    let bytes = _mm512_srlv_epi64(load_each_twice(first, second), shifts);
    _mm512_and_si512(bytes, _mm512_set1_epi8(15))
}

/// As [`nibbles`], but the high ones stay where they are and so are 16 times too large, as are their sums:
/// those of second halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn nibbles_in_place(first: &[u8; 16], second: &[u8; 16]) -> __m512i {
    const LOW: i64 = 0x0f0f_0f0f_0f0f_0f0f;
    let mask = _mm512_setr_epi64(LOW, LOW, LOW << 4, LOW << 4, LOW, LOW, LOW << 4, LOW << 4);
    _mm512_and_si512(load_each_twice(first, second), mask)
}

/// The quants of two blocks plus 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn signed_pair(first: &[i8; 32], second: &[i8; 32]) -> __m512i {
    let pair = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_i8(first)), load_i8(second));
    _mm512_xor_si512(pair, _mm512_set1_epi8(-128))
}

/// Numbers of 4 bits, and 16 more where a bit of two blocks is set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn fifth_bits(low: __m512i, first: [u8; 4], second: [u8; 4]) -> __m512i {
    let bits = u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(second)) << 32;
    _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16))
}

/// What each of 64 numbers of 4 bits stands for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn levels(levels: &[u8; 16], codes: __m512i) -> __m512i {
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_16(levels)), codes)
}

/// Levels that are made unsigned by adding to them.
pub(crate) const fn raised(levels: &[i8; 16], by: i16) -> [u8; 16] {
    let mut raised = [0; 16];
    let mut i = 0;
    while i < 16 {
        raised[i] = (levels[i] as i16 + by) as u8;
        i += 1;
    }
    raised
}

/// Products of 256 unsigned quants with a group, summed by sixteens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dots(quants: [__m512i; 4], x: &Q8Group) -> __m512 {
    let [a, b, c, d] = quants;
    let dot = |weights, i: usize| {
        // SAFETY: reads 64 of the 256 bytes of the array, for i < 4.
        let x = unsafe { _mm512_load_si512(x.quants.as_flattened()[64 * i..][..64].as_ptr().cast()) };
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, x)
    };
    let (a, b, c, d) = (dot(a, 0), dot(b, 1), dot(c, 2), dot(d, 3));
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd)))
}

/// [`dots`] as they would be of quants that are less by `offset`. Exact, for these are integers below 2²⁴.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dots_less(offset: __m512, quants: [__m512i; 4], x: &Q8Group) -> __m512 {
    _mm512_fnmadd_ps(offset, load_f32(&x.sums), dots(quants, x))
}

/// A register of 16 numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dwords(number: impl Fn(usize) -> u32) -> __m512i {
    let mut numbers = [0; 16];
    for (i, to) in numbers.iter_mut().enumerate() {
        *to = number(i);
    }
    // SAFETY: reads the 64 bytes of the array, at any alignment.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

/// A number for each lane, from its block and half of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn lanes_of(number: impl Fn(usize, usize) -> u32) -> __m512i {
    let mut numbers = [0; 16];
    for i in 0..16 {
        numbers[lane(i / 2, i % 2)] = number(i / 2, i % 2);
    }
    dwords(|lane| numbers[lane])
}

/// One factor for the lanes of first halves of blocks, another for those of second halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn by_half(first: f32, second: f32) -> __m512 {
    _mm512_castsi512_ps(lanes_of(|_, half| [first, second][half].to_bits()))
}

/// Of 16 bytes, that of each lane's block and half.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn bytes_of_lanes(bytes: __m128i, place: impl Fn(usize, usize) -> usize) -> __m512i {
    // The upper three bytes of a lane become zeros.
    let places = lanes_of(|block, half| 0x8080_8000 | place(block, half) as u32);
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), places)
}

/// Numbers of 8 bits, one for each half of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn floats_of_halves(numbers: __m128i) -> __m512 {
    _mm512_cvtepi32_ps(bytes_of_lanes(numbers, |block, half| 2 * block + half))
}

/// Of a number for each of eight blocks, that of each lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn lanes_of_blocks(numbers: __m256) -> __m512 {
    _mm512_permutexvar_ps(lanes_of(|block, _| block as u32), _mm512_castps256_ps512(numbers))
}

/// Of two numbers side by side for each of eight blocks, the first and the second of each lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn lanes_of_pairs(numbers: __m512) -> (__m512, __m512) {
    let first = _mm512_permutexvar_ps(lanes_of(|block, _| 2 * block as u32), numbers);
    (first, _mm512_permutexvar_ps(lanes_of(|block, _| 2 * block as u32 + 1), numbers))
}

/// A number in half precision as a float in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn half(bytes: [u8; 2]) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(bytes)))
}

/// A number in half precision for each of eight blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn halves(of: impl Fn(usize) -> [u8; 2]) -> __m256 {
    let half = |i: usize| u64::from(u16::from_le_bytes(of(i)));
    let four = |i: usize| half(i) | half(i + 1) << 16 | half(i + 2) << 32 | half(i + 3) << 48;
    _mm256_cvtph_ps(_mm_set_epi64x(four(4).cast_signed(), four(0).cast_signed()))
}

/// The two numbers in half precision that begin each of eight blocks.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn pairs_of_halves<B: QuantBlock>(blocks: &[B; 8]) -> __m512 {
    const { assert!(size_of::<B>().is_multiple_of(4) && size_of::<B>() <= 24) };
    let (size, bytes) = (size_of::<B>(), as_bytes(blocks));
    let load = |at: usize| match bytes[at..].first_chunk() {
        Some(bytes) => load_64(bytes),
        None => unreachable!("eight blocks are longer"),
    };
    // Registers that begin at these bytes hold the numbers of four, three and two blocks.
    let (second, last) = (if size <= 20 { 4 } else { 3 }, 8 * size - 64);
    let found = dwords(|i| (if i < second { i * size } else { 64 + (i - second) * size }) as u32 / 4);
    let mut pairs = _mm512_permutex2var_epi32(load(0), found, load(second * size));
    if second == 3 {
        let found = dwords(|i| if i < 6 { i as u32 } else { 16 + (i * size).wrapping_sub(last) as u32 / 4 });
        pairs = _mm512_permutex2var_epi32(pairs, found, load(last));
    }
    _mm512_cvtph_ps(_mm512_castsi512_si256(pairs))
}

/// The dot products of rows whose `N` blocks hold 256 weights: `add` adds so many to the sum of each lane.
///
/// # Panics
/// If `rows` isn't as many rows as `out` is long, of as many blocks as `x` is groups for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dot_rows<B: QuantBlock, const N: usize>(
    rows: &[u8],
    x: &[Q8Group],
    out: &mut [f32],
    add: impl Fn(__m512, &[B; N], &Q8Group) -> __m512,
) {
    const { assert!(N * B::TYPE.block_len() == 256) };
    let rows = blocks::<B>(rows);
    let row_len = rows.len() / out.len().max(1);
    assert!(row_len > 0 && row_len * out.len() == rows.len(), "rows are equally long");
    assert_eq!(x.len(), n_groups(row_len * (GROUP_BLOCKS / N)), "the groups are those of a row");
    let (x, x_pairs) = x.split_at(row_len / N);
    for (rows, out) in rows.chunks(4 * row_len).zip(out.chunks_mut(4)) {
        let mut sums = [_mm512_setzero_ps(); 4];
        let mut rest = rows;
        for sum in &mut sums {
            let Some((row, after)) = rest.split_at_checked(row_len) else { break };
            for (group, x) in row.as_chunks::<N>().0.iter().zip(x) {
                prefetch_after(group);
                *sum = add(*sum, group, x);
            }
            rest = after;
        }
        let mut sum = transpose(sums);
        for (i, x) in x_pairs.iter().enumerate() {
            sum = add(sum, &pairs(rows, row_len, i), x);
        }
        let sums = sum_of_fours(sum);
        match out.as_mut_array::<4>() {
            Some(out) => *out = sums,
            None => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum),
        }
    }
}

/// The `i`-th 64 weights beyond whole groups of each of up to four rows; zeros where there are none.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn pairs<B: QuantBlock, const N: usize>(rows: &[B], row_len: usize, i: usize) -> [B; N] {
    let mut pairs = [zeroed(); N];
    let each = (N / 4).max(1);
    let first = row_len - row_len % N + i * each;
    for (place, block) in pairs.iter_mut().enumerate() {
        let (row, place) = (place / each, first + place % each);
        if place < row_len
            && let Some(found) = rows.get(row * row_len + place)
        {
            *block = *found;
        }
    }
    pairs
}

/// The sums of four registers, still in four parts each: one in each four lanes, in order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn transpose([a, b, c, d]: [__m512; 4]) -> __m512 {
    let pairs = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (ab, cd) = (_mm512_castps_pd(pairs(a, b)), _mm512_castps_pd(pairs(c, d)));
    let (first, second) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
    _mm512_add_ps(_mm512_castpd_ps(first), _mm512_castpd_ps(second))
}

/// The sum of four times four lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sum_of_fours(x: __m512) -> [f32; 4] {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let mut out = [0.0; 4];
    // SAFETY: writes the 4 floats of the array, at any alignment.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), four) };
    out
}
