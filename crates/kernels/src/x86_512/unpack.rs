//! From packed blocks to quants and numbers by lane: loads, moves of bits, and scales.

use std::arch::x86_64::*;

use crate::activations::lane;
use crate::block::{QuantBlock, as_bytes};
pub(crate) use crate::x86::load_16;
use crate::x86::{load_32, load_i8};

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

/// The quants of two blocks plus 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn signed_pair(first: &[i8; 32], second: &[i8; 32]) -> __m512i {
    let pair = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(load_i8(first)), load_i8(second));
    _mm512_xor_si512(pair, _mm512_set1_epi8(-128))
}

/// 128 bytes that lie in eight places.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load_each<'a>(bytes: impl Fn(usize) -> &'a [u8; 16]) -> [__m512i; 2] {
    let two = |i: usize| {
        let first = _mm256_castsi128_si256(load_16(bytes(i)));
        _mm256_inserti128_si256::<1>(first, load_16(bytes(i + 1)))
    };
    let four = |i: usize| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(two(i)), two(i + 2));
    [four(0), four(4)]
}

/// 128 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn load_128(bytes: &[u8; 128]) -> [__m512i; 2] {
    let [first, second] = bytes.as_chunks().0 else { unreachable!("128 are twice 64") };
    [load_64(first), load_64(second)]
}

/// Four bytes of 128 for each lane, four times: of those in which its block and half begin, the first four, the second, and
/// so on. `first` is their place, in fours.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn fours_of_lanes([a, b]: [__m512i; 2], first: impl Fn(usize, usize) -> usize) -> [__m512i; 4] {
    let four =
        |r: usize| _mm512_permutex2var_epi32(a, lanes_of(|block, half| (first(block, half) + r) as u32), b);
    [four(0), four(1), four(2), four(3)]
}

/// Of each byte the low four bits, or in lanes where `is_high` the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn nibbles([a, b, c, d]: [__m512i; 4], is_high: impl Fn(usize, usize) -> bool) -> [__m512i; 4] {
    let shifts = lanes_of(|block, half| 4 * u32::from(is_high(block, half)));
    let nibbles = |bytes| _mm512_and_si512(_mm512_srlv_epi32(bytes, shifts), _mm512_set1_epi8(15));
    [nibbles(a), nibbles(b), nibbles(c), nibbles(d)]
}

/// As [`nibbles`], but the high ones stay where they are and so are 16 times too large, as are their sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn nibbles_in_place(
    [a, b, c, d]: [__m512i; 4],
    is_high: impl Fn(usize, usize) -> bool,
) -> [__m512i; 4] {
    let mask = lanes_of(|block, half| 0x0f0f_0f0f << (4 * u32::from(is_high(block, half))));
    let nibbles = |bytes| _mm512_and_si512(bytes, mask);
    [nibbles(a), nibbles(b), nibbles(c), nibbles(d)]
}

/// Numbers of 4 bits, and 16 more where the bit is set that a block of 32 has for it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn fifth_bits(low: [__m512i; 4], bits: impl Fn(usize) -> [u8; 4]) -> [__m512i; 4] {
    let two =
        |i: usize| i64::from(u32::from_le_bytes(bits(i))) | i64::from(i32::from_le_bytes(bits(i + 1))) << 32;
    let blocks = _mm512_castsi256_si512(_mm256_setr_epi64x(two(0), two(2), two(4), two(6)));
    // To each lane its block's 32 bits, those of its half in the low 16.
    let bits = _mm512_permutexvar_epi32(lanes_of(|block, _| block as u32), blocks);
    let bits = _mm512_srlv_epi32(bits, lanes_of(|_, half| 16 * half as u32));
    let mut out = low;
    for (r, out) in out.iter_mut().enumerate() {
        // The byte with a lane's four bits, four times.
        let byte = r as u32 / 2 * 0x0101_0101;
        let four = _mm512_shuffle_epi8(bits, dwords(|lane| byte + lane as u32 % 4 * 0x0404_0404));
        let which = _mm512_set1_epi32(if r % 2 == 0 { 0x0804_0201 } else { 0x8040_2010_u32.cast_signed() });
        let set = _mm512_test_epi8_mask(four, which);
        *out = _mm512_mask_add_epi8(*out, set, *out, _mm512_set1_epi8(16));
    }
    out
}

/// Numbers, and more of them where the bit is set that 256 weights have for it: bit `i` of byte `j` is that of weight `j` of
/// block `i`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn bits_of_blocks(low: [__m512i; 4], bits: &[u8; 32], more: i8) -> [__m512i; 4] {
    let bits = load_twice(bits);
    let which = lanes_of(|block, _| 0x0101_0101 << block);
    let mut out = low;
    for (out, bits) in out.iter_mut().zip(fours_of_lanes([bits, bits], |_, half| 4 * half)) {
        *out = _mm512_mask_add_epi8(*out, _mm512_test_epi8_mask(bits, which), *out, _mm512_set1_epi8(more));
    }
    out
}

/// What each of numbers of 4 bits stands for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn levels(levels: &[u8; 16], [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let levels = _mm512_broadcast_i32x4(load_16(levels));
    let level = |codes| _mm512_shuffle_epi8(levels, codes);
    [level(a), level(b), level(c), level(d)]
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

/// Numbers with the other sign.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn minus(x: __m512) -> __m512 {
    _mm512_xor_ps(x, _mm512_set1_ps(-0.0))
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

/// The number in half precision that begins each of eight blocks of 18 bytes, in the lanes of each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn halves_of_18<B: QuantBlock>(blocks: &[B; 8]) -> __m512 {
    const { assert!(size_of::<B>() == 18) };
    let load = |i: usize| match as_bytes(&blocks[i..]).first_chunk() {
        Some(bytes) => load_64(bytes),
        None => unreachable!("four blocks are longer"),
    };
    // Where the lanes' numbers are, in 16 bits each.
    const WORDS: [u32; 16] = {
        let (mut words, mut i) = ([0; 16], 0);
        while i < 16 {
            let (block, lane) = (i / 2, lane(i / 2, i % 2));
            words[lane / 2] |= ((block / 4 * 32 + block % 4 * 9) as u32) << (16 * (lane % 2));
            i += 1;
        }
        words
    };
    let words = dwords(|i| WORDS[i]);
    let halves = _mm512_permutex2var_epi16(load(0), words, load(4));
    _mm512_cvtph_ps(_mm512_castsi512_si256(halves))
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
