//! What the NEON kernels share: loads and stores through references, the steps that several formats unpack by, and
//! the dot product of bytes.
//!
//! Of these only the last is not in the baseline of the architecture. The intrinsics for it are not stable in the
//! compiler that this crate asks for, so it is written as assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::activations::{Q8_LEN, Q8Block};
use crate::block::{QuantBlock, blocks, by_few};

/// 32 signed bytes.
pub(crate) type Bytes = [int8x16_t; 2];

/// `f` of each. Where a crate is compiled in many parts, as in the dev profile, the standard library's `map` is a call,
/// and `f` another.
#[inline(always)]
pub(crate) fn each<T, U>([a, b, c, d]: [T; 4], f: impl Fn(T) -> U) -> [U; 4] {
    [f(a), f(b), f(c), f(d)]
}

/// 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load_16(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: reads the 16 bytes of the reference, at any alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// 32 signed bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load_i8(bytes: &[i8; 32]) -> Bytes {
    // SAFETY: reads the 32 bytes of the reference, at any alignment.
    unsafe { [vld1q_s8(bytes.as_ptr()), vld1q_s8(bytes.as_ptr().add(16))] }
}

/// 4 floats.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load_f32(x: &[f32; 4]) -> float32x4_t {
    // SAFETY: reads the 4 floats of the reference, at any alignment.
    unsafe { vld1q_f32(x.as_ptr()) }
}

/// Writes 16 bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn store_16(out: &mut [u8; 16], x: uint8x16_t) {
    // SAFETY: writes the 16 bytes of the reference, at any alignment.
    unsafe { vst1q_u8(out.as_mut_ptr(), x) }
}

/// Writes 4 floats.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn store_f32(out: &mut [f32; 4], x: float32x4_t) {
    // SAFETY: writes the 4 floats of the reference, at any alignment.
    unsafe { vst1q_f32(out.as_mut_ptr(), x) }
}

/// The low nibbles of 16 bytes, and the high ones.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn nibbles(bytes: uint8x16_t) -> [int8x16_t; 2] {
    let (low, high) = (vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes));
    [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)]
}

/// Of each of 16 bytes the bits from `shift` on, as far as `mask` has them.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn bits(bytes: &[u8; 16], shift: usize, mask: u8) -> int8x16_t {
    // To the left by a negative number is to the right.
    let shifted = vshlq_u8(load_16(bytes), vdupq_n_s8(-(shift as i8)));
    vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8(mask)))
}

/// The `run`-th 2 bits of each of 32 bytes, the lowest first.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn pairs(bytes: &[u8; 32], run: usize) -> Bytes {
    let bytes = bytes.as_chunks::<16>().0;
    [bits(&bytes[0], 2 * run, 3), bits(&bytes[1], 2 * run, 3)]
}

/// `weights` and `value` where bit `i` of a byte is set.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn or_where(weights: Bytes, bytes: &[u8; 32], i: usize, value: i8) -> Bytes {
    let bytes = bytes.as_chunks::<16>().0;
    let is_set = |half: usize| vtstq_u8(load_16(&bytes[half]), vdupq_n_u8(1 << i));
    let of = |half: usize| vandq_s8(vreinterpretq_s8_u8(is_set(half)), vdupq_n_s8(value));
    [vorrq_s8(weights[0], of(0)), vorrq_s8(weights[1], of(1))]
}

/// 32 bits, one in each byte: all its bits set or none.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn masks(bits: [u8; 4]) -> Bytes {
    let all = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(bits)));
    // Byte i looks at byte i / 8 and in it at bit i % 8.
    let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let of = |first: u8, second: u8| {
        let bytes = vqtbl1q_u8(all, vcombine_u8(vdup_n_u8(first), vdup_n_u8(second)));
        vreinterpretq_s8_u8(vtstq_u8(bytes, bit))
    };
    [of(0, 1), of(2, 3)]
}

/// 32 numbers of 5 bits: the nibbles of `low`, and the bits of `high` as the fifth.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn five_bits(low: &[u8; 16], high: [u8; 4]) -> Bytes {
    let ([a, b], [c, d], fifth) = (nibbles(load_16(low)), masks(high), vdupq_n_s8(16));
    [vorrq_s8(a, vandq_s8(c, fifth)), vorrq_s8(b, vandq_s8(d, fifth))]
}

/// Each less `offset`.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn less(weights: Bytes, offset: i8) -> Bytes {
    let offset = vdupq_n_s8(offset);
    [vsubq_s8(weights[0], offset), vsubq_s8(weights[1], offset)]
}

/// What each of 32 numbers of 4 bits stands for.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn levels(levels: &[i8; 16], codes: Bytes) -> Bytes {
    let of = |codes| levels_16(levels, vreinterpretq_u8_s8(codes));
    [of(codes[0]), of(codes[1])]
}

/// What each of 16 numbers of 4 bits stands for.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn levels_16(levels: &[i8; 16], codes: uint8x16_t) -> int8x16_t {
    // SAFETY: reads the 16 bytes of the reference, at any alignment.
    vqtbl1q_s8(unsafe { vld1q_s8(levels.as_ptr()) }, codes)
}

/// Adds the products of 16 signed bytes to four sums, four to each.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn add_products(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction, which this function's instruction set has, on the registers named.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Running sums of a row's dot product.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    products: float32x4_t,
    mins: f32,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn zero() -> Sums {
        Sums { products: vdupq_n_f32(0.0), mins: 0.0 }
    }

    /// Adds the product of 32 weights `scale · w` with a block.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(crate) fn add(&mut self, weights: Bytes, scale: f32, x: &Q8Block) {
        let quants = load_i8(&x.quants);
        let dots = add_products(vdupq_n_s32(0), weights[0], quants[0]);
        let dots = add_products(dots, weights[1], quants[1]);
        self.products = vfmaq_n_f32(self.products, vcvtq_f32_s32(dots), scale * x.scale);
    }

    /// As [`add`](Self::add), with a scale for each 16 weights.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(crate) fn add_halves(&mut self, weights: Bytes, scales: [f32; 2], x: &Q8Block) {
        let quants = load_i8(&x.quants);
        for half in 0..2 {
            let dots = vcvtq_f32_s32(add_products(vdupq_n_s32(0), weights[half], quants[half]));
            self.products = vfmaq_n_f32(self.products, dots, scales[half] * x.scale);
        }
    }

    /// Takes off what 32 weights are too large by.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(crate) fn subtract(&mut self, min: f32, x: &Q8Block) {
        self.mins += min * x.scale * x.sum() as f32;
    }

    /// As [`subtract`](Self::subtract), with a minimum for each 16 weights.
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    pub(crate) fn subtract_halves(&mut self, mins: [f32; 2], x: &Q8Block) {
        self.mins += x.scale * (mins[0] * f32::from(x.sums[0]) + mins[1] * f32::from(x.sums[1]));
    }

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn total(self, other: Sums) -> f32 {
        vaddvq_f32(vaddq_f32(self.products, other.products)) - (self.mins + other.mins)
    }
}

/// The dot products of a row with each token of `x`: `add` adds the `i`-th 32 weights of a block to the sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn dot_blocks<B: QuantBlock>(
    row: &[u8],
    x: &[Q8Block],
    out: &mut [f32],
    add: impl Fn(&mut Sums, &B, usize, &Q8Block),
) {
    let row = blocks::<B>(row);
    by_few!(x, out, [4, 2, 1], |x| dot_few(row, x, &add));
}

/// Two sums are under way for each token, for one can take the next block only when the addition before is done; they take
/// turns, so that `add` is called, and its code is, in one place.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_few<B: QuantBlock, const N: usize>(
    row: &[B],
    x: &[Q8Block],
    add: &impl Fn(&mut Sums, &B, usize, &Q8Block),
) -> [f32; N] {
    let per_block = const { B::TYPE.block_len() / Q8_LEN };
    let x_len = row.len() * per_block;
    assert_eq!(x.len(), N * x_len, "one activation block for every 32 weights");
    let (mut sums, mut others) = ([Sums::zero(); N], [Sums::zero(); N]);
    for (b, block) in row.iter().enumerate() {
        for i in 0..per_block {
            for (t, sums) in sums.iter_mut().enumerate() {
                add(sums, block, i, &x[t * x_len + b * per_block + i]);
            }
            (sums, others) = (others, sums);
        }
    }
    let mut out = [0.0; N];
    for t in 0..N {
        out[t] = sums[t].total(others[t]);
    }
    out
}
