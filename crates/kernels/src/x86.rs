//! What the AVX2 kernels share: loads from references, and the steps that several formats take.
//!
//! A load from a reference to as many bytes as the register has is sound for any value, so these are
//! safe functions; with them the kernels need no `unsafe` of their own.
//!
//! Two things cost these kernels a factor of two until they were avoided. A closure given to a standard
//! library function (`map`, `from_fn`) has the instruction set of the kernel that wrote it, the library
//! function does not, and so neither is inlined: loops here are plain. And where only one lane of a
//! vector is used, the compiler may load just that lane into a register that another sum lives in, and
//! so make each wait for the other: scalars here are broadcast to all lanes.

use std::arch::x86_64::*;

use crate::activations::Q8Block;
use crate::block::{QuantBlock, blocks, by_few, of_tokens};

/// 16 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn load_16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: reads the 16 bytes of the reference, at any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// 32 bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn load_32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference, at any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 32 signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference, at any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// 8 floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn load_f32(x: &[f32; 8]) -> __m256 {
    // SAFETY: reads the 8 floats of the reference, at any alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// Writes 32 signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn store_i8(out: &mut [i8; 32], x: __m256i) {
    // SAFETY: writes the 32 bytes of the reference, at any alignment.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x) }
}

/// A number in half precision as a float in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn half(bytes: [u8; 2]) -> __m256 {
    _mm256_cvtph_ps(_mm_set1_epi16(i16::from_le_bytes(bytes)))
}

/// Two numbers in half precision as floats, in the lowest two lanes; the others are 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn halves(a: [u8; 2], b: [u8; 2]) -> __m128 {
    let (a, b) = (u32::from(u16::from_le_bytes(a)), u32::from(u16::from_le_bytes(b)));
    _mm_cvtph_ps(_mm_cvtsi32_si128((a | b << 16).cast_signed()))
}

/// 16 bytes as 32 numbers of 4 bits: the low nibbles, then the high ones.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn nibbles(bytes: &[u8; 16]) -> __m256i {
    let low = load_16(bytes);
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(low), low);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// What each of 32 numbers of 4 bits stands for.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn levels(levels: &[i8; 16], codes: __m256i) -> __m256i {
    let mut bytes = [0; 16];
    for (byte, level) in bytes.iter_mut().zip(levels) {
        *byte = level.cast_unsigned();
    }
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_16(&bytes)), codes)
}

/// 32 bits, one in each byte: 16 where the bit is set and 0 elsewhere.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn fifth_bits(bits: [u8; 4]) -> __m256i {
    let all = _mm256_set1_epi32(i32::from_le_bytes(bits));
    // Byte i of the result looks at byte i / 8 and in it at bit i % 8.
    let of_each = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, of_each), bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Products of unsigned weights with activations, summed by fours into 8 lanes. Exact for weights up
/// to 128: a sum of two products then fits in the 16 bits that the instruction has for it.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_unsigned(weights: __m256i, x: &Q8Block) -> __m256i {
    let pairs = _mm256_maddubs_epi16(weights, load_i8(&x.quants));
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// As [`dot_unsigned`] for signed weights.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_signed(weights: __m256i, x: &Q8Block) -> __m256i {
    _mm256_madd_epi16(pairs_signed(weights, x), _mm256_set1_epi16(1))
}

/// Products of signed weights with activations, summed by twos into 16 lanes. The instruction wants one
/// side unsigned, so the weights' signs are moved to the activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn pairs_signed(weights: __m256i, x: &Q8Block) -> __m256i {
    _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(load_i8(&x.quants), weights))
}

/// The activations' sum in lane 1; the others are 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_in_lane_1(x: &Q8Block) -> __m128 {
    let (a, b) = (u32::from(x.sums[0].cast_unsigned()), u32::from(x.sums[1].cast_unsigned()));
    let sums = _mm_set1_epi32((a | b << 16).cast_signed());
    _mm_cvtepi32_ps(_mm_madd_epi16(sums, _mm_setr_epi16(0, 0, 1, 1, 0, 0, 0, 0)))
}

/// The sum of 8 lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn sum_f32(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// Asks for the memory that comes 8 KiB after `weights`, as much as these are: a matrix is read from start
/// to end, and the hardware's own look-ahead ends at each 4 KiB page. On Zen 5, whose kernels overtake 2 KiB, a row's
/// products from memory became 20 to 60 % faster than with those, generation 10 to 30 %.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn prefetch_after<T: ?Sized>(weights: &T) {
    const AHEAD: usize = 8192;
    for at in (0..size_of_val(weights)).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(weights).cast::<i8>().wrapping_add(AHEAD + at));
    }
}

/// Running sums of a row's dot product.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    products: __m256,
    /// In lane 1; the others are 0.
    offsets: __m128,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn zero() -> Sums {
        Sums { products: _mm256_setzero_ps(), offsets: _mm_setzero_ps() }
    }

    /// Adds a block without an offset: `dots · scale · x.scale`, with a scale for each lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn add(&mut self, dots: __m256i, scale: __m256, x: &Q8Block) {
        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.scale));
        self.products = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, self.products);
    }

    /// Adds a block with an offset: `(dots · scale + offset · Σ x.quants) · x.scale`, with the scale in
    /// lane 0, the offset in lane 1.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn add_with_offset(&mut self, dots: __m256i, scale_offset: __m128, x: &Q8Block) {
        let scaled = _mm_mul_ps(scale_offset, _mm_set1_ps(x.scale));
        let scale = _mm256_broadcastss_ps(scaled);
        self.products = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, self.products);
        self.offsets = _mm_fmadd_ps(sum_in_lane_1(x), scaled, self.offsets);
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn total(self, other: Sums) -> f32 {
        let offsets = _mm_add_ps(self.offsets, other.offsets);
        let products = _mm256_add_ps(self.products, other.products);
        sum_f32(_mm256_add_ps(products, _mm256_zextps128_ps256(offsets)))
    }
}

/// The dot products of a row of blocks of 32 weights with each token of `x`: `add` adds one block to the sums. What it
/// does to a block alone is the same for all tokens, and is done once: it is inlined for a few at a time.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dot_blocks<B: QuantBlock>(
    row: &[u8],
    x: &[Q8Block],
    out: &mut [f32],
    add: impl Fn(&mut Sums, &B, &Q8Block),
) {
    let row = blocks::<B>(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x, &add));
}

/// Two blocks are under way at a time, for a sum can take the next only when the addition before is done.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_few<B: QuantBlock, const N: usize>(
    row: &[B],
    x: &[Q8Block],
    add: &impl Fn(&mut Sums, &B, &Q8Block),
) -> [f32; N] {
    let x_len = row.len();
    assert_eq!(x.len(), N * x_len, "one activation block for every 32 weights");
    let (mut even, mut odd) = ([Sums::zero(); N], [Sums::zero(); N]);
    let (pairs, last) = row.as_chunks::<2>();
    let tokens = of_tokens::<_, N, 2>(x, pairs.len());
    for (i, blocks) in pairs.iter().enumerate() {
        prefetch_after(blocks);
        for t in 0..N {
            let x = &tokens[t][i];
            add(&mut even[t], &blocks[0], &x[0]);
            add(&mut odd[t], &blocks[1], &x[1]);
        }
    }
    for block in last {
        for t in 0..N {
            add(&mut even[t], block, &x[(t + 1) * x_len - 1]);
        }
    }
    totals(even, odd)
}

/// What each token's two sums come to.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn totals<const N: usize>(even: [Sums; N], odd: [Sums; N]) -> [f32; N] {
    let mut out = [0.0; N];
    for t in 0..N {
        out[t] = even[t].total(odd[t]);
    }
    out
}
