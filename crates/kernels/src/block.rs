//! What one quantization block is: [`QuantBlock`], and the cast from row bytes to blocks.
//!
//! Every quantized format that ggml has says the same of 16 weights at a time: small integers, a scale,
//! and for some formats a minimum. So a format only has to say how it [unpacks](QuantBlock::unpack);
//! decoding and the integer dot product follow, written once here.

use metallic_gguf::GgmlType;

use crate::activations::Q8Block;
use crate::gemm;

/// 32 weights as integers: `w[i] = scales[i / 16] · quants[i] − mins[i / 16]`.
///
/// The integers are those of the format, so nothing is rounded but the products with the scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unpacked {
    /// The integers.
    pub(crate) quants: [i8; 32],
    /// The step of the first and of the second 16.
    pub(crate) scales: [f32; 2],
    /// What is subtracted from the first and from the second 16; 0 in formats without a minimum.
    pub(crate) mins: [f32; 2],
}

impl Unpacked {
    /// The weights.
    #[inline(always)]
    pub(crate) fn decode(&self, out: &mut [f32; 32]) {
        for (half, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (out, &q) in out.iter_mut().zip(&self.quants[16 * half..]) {
                *out = self.scales[half] * f32::from(q) - self.mins[half];
            }
        }
    }

    /// Dot product with 32 activations: an exact integer sum for each 16, then floats.
    #[inline(always)]
    pub(crate) fn dot(&self, x: &Q8Block) -> f32 {
        let mut sums = [0i32; 2];
        for (half, sum) in sums.iter_mut().enumerate() {
            let (w, x) = (&self.quants[16 * half..][..16], &x.quants[16 * half..][..16]);
            *sum = w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        }
        let half = |i: usize| self.scales[i] * sums[i] as f32 - self.mins[i] * f32::from(x.sums[i]);
        x.scale * (half(0) + half(1))
    }
}

/// Something that file bytes can be taken for.
///
/// # Safety
/// The type must be of alignment 1, without padding, and valid for every bit pattern.
pub(crate) unsafe trait Bytes: Copy + 'static {}

// SAFETY: promised by all `QuantBlock`s.
unsafe impl<B: QuantBlock> Bytes for B {}

/// 32 numbers, one beside the other, of a format whose numbers are floats.
pub(crate) trait FloatBlock: Bytes {
    /// Digits of a number's significand in base two: AMX has ways of its own for those that have few.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there is no AMX"))]
    const DIGITS: u32;

    /// Expands 32 numbers of each of 16 rows.
    fn expand<R: gemm::Rows<Self>>(rows: &R, panel: &mut gemm::FloatPanel);
}

/// A block of one quantized format, as it lies in the file (little-endian).
///
/// # Safety
/// The type must be `repr(C)`, of alignment 1, without padding, of size `TYPE.block_bytes()`, and valid
/// for every bit pattern: [`blocks`] casts file bytes to it.
pub(crate) unsafe trait QuantBlock: Copy + 'static {
    /// The format.
    const TYPE: GgmlType;
    /// Whether the scales and minima of the first 16 and of the second 16 of 32 weights may differ.
    const HALVES: bool;
    /// Whether the format has minima; without, they are all 0.
    const MINS: bool;

    /// The `i`-th 32 weights, `i < TYPE.block_len() / 32`.
    fn unpack(&self, i: usize) -> Unpacked;

    /// Expands one block of each of 16 rows: `panel` has a block for every 32 weights.
    ///
    /// The provided way unpacks row after row. It is several times faster to say what to do with all rows
    /// at once; what comes out must be the same.
    #[inline(always)]
    fn expand<R: gemm::Rows<Self>>(rows: &R, panel: &mut [gemm::PanelBlock]) {
        gemm::expand_each(rows, panel);
    }

    /// Turns a block of a big-endian file into a little-endian one, or back: swaps the bytes of every
    /// field of more than one byte, and leaves packed nibbles alone.
    fn swap_bytes(&mut self);
}

/// A format that this crate can make from floats.
pub(crate) trait Quantize: QuantBlock {
    /// The block nearest to `x`, which holds `TYPE.block_len()` values. Any float is accepted; where one
    /// isn't finite the block is of no use, but nothing panics.
    fn quantize(x: &[f32]) -> Self;
}

/// Writes the products of a row with some tokens, as many tokens at a time as `$kernel` is made for: `$n`, from the most on.
macro_rules! by_few {
    ($x:ident, $out:ident, [$($n:literal),+], $kernel:expr) => {{
        let x_len = $x.len() / $out.len().max(1);
        let (mut x, mut out) = ($x, $out);
        $(while let Some(few) = out.first_chunk_mut::<$n>() {
            *few = $kernel(&x[..$n * x_len]);
            x = &x[$n * x_len..];
            out = &mut std::mem::take(&mut out)[$n..];
        })+
    }};
}
pub(crate) use by_few;

/// The activations of each of `N` tokens, which lie one after another, `L` for each of `n` blocks.
///
/// # Panics
/// If there are fewer.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn of_tokens<X, const N: usize, const L: usize>(x: &[X], n: usize) -> [&[[X; L]]; N] {
    let (mut tokens, x_len) = ([&[][..]; N], x.len() / N);
    for (t, token) in tokens.iter_mut().enumerate() {
        *token = &x[t * x_len..].as_chunks().0[..n];
    }
    tokens
}

/// The blocks of a row.
///
/// # Panics
/// If `bytes` is not a whole number of blocks.
pub(crate) fn blocks<B: QuantBlock>(bytes: &[u8]) -> &[B] {
    const { assert!(size_of::<B>() == B::TYPE.block_bytes()) };
    cast(bytes)
}

/// Bytes as what they can be taken for.
///
/// # Panics
/// If `bytes` is not a whole number of them.
pub(crate) fn cast<B: Bytes>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1) };
    assert!(bytes.len().is_multiple_of(size_of::<B>()), "a row is a whole number of blocks");
    // SAFETY: `Bytes` promises alignment 1 and validity for every bit pattern; the assertion proves that
    // the blocks end where the bytes do.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<B>()) }
}

/// The blocks of a row, to write.
///
/// # Panics
/// If `bytes` is not a whole number of blocks.
pub(crate) fn blocks_mut<B: QuantBlock>(bytes: &mut [u8]) -> &mut [B] {
    const { assert!(align_of::<B>() == 1 && size_of::<B>() == B::TYPE.block_bytes()) };
    assert!(bytes.len().is_multiple_of(size_of::<B>()), "a row is a whole number of blocks");
    // SAFETY: as in `blocks`; the borrow is exclusive, and every bit pattern written is valid bytes.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<B>()) }
}

/// The bytes of some blocks.
#[cfg(target_arch = "x86_64")]
pub(crate) fn as_bytes<B: QuantBlock>(blocks: &[B]) -> &[u8] {
    // SAFETY: `QuantBlock` promises that there is no padding, so these are as many bytes, all initialised.
    unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), size_of_val(blocks)) }
}

/// A block of zero bytes.
#[cfg(target_arch = "x86_64")]
pub(crate) fn zeroed<B: QuantBlock>() -> B {
    // SAFETY: `QuantBlock` promises validity for every bit pattern.
    unsafe { std::mem::zeroed() }
}
