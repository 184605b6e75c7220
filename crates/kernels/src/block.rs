//! What one quantization block is: [`QuantBlock`], and the cast from row bytes to blocks.

use metallic_gguf::GgmlType;

use crate::activations::Q8Block;

/// A block of one quantized format, as it lies in the file (little-endian).
///
/// # Safety
/// The type must be `repr(C)`, of alignment 1, without padding, of size `TYPE.block_bytes()`, and valid
/// for every bit pattern: [`blocks`] casts file bytes to it.
pub unsafe trait QuantBlock: Copy + 'static {
    /// The format.
    const TYPE: GgmlType;

    /// Decodes the block's `TYPE.block_len()` weights into `out`, bit-exact with the reference.
    fn decode(&self, out: &mut [f32]);

    /// Turns a block of a big-endian file into a little-endian one, or back: swaps the bytes of every
    /// field of more than one byte, and leaves packed nibbles alone.
    fn swap_bytes(&mut self);
}

/// A format whose blocks meet 8-bit activations in integers.
pub trait DotQ8: QuantBlock {
    /// Dot product of this block with `TYPE.block_len() / 32` activation blocks.
    fn dot_q8(&self, x: &[Q8Block]) -> f32;
}

/// The blocks of a row.
///
/// # Panics
/// If `bytes` is not a whole number of blocks.
pub fn blocks<B: QuantBlock>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1 && size_of::<B>() == B::TYPE.block_bytes()) };
    assert!(bytes.len().is_multiple_of(size_of::<B>()), "a row is a whole number of blocks");
    // SAFETY: `QuantBlock` promises alignment 1 and validity for every bit pattern; the assertions above
    // prove the size and that the blocks end where the bytes do.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<B>()) }
}

/// The blocks of a row, to write.
///
/// # Panics
/// If `bytes` is not a whole number of blocks.
pub fn blocks_mut<B: QuantBlock>(bytes: &mut [u8]) -> &mut [B] {
    const { assert!(align_of::<B>() == 1 && size_of::<B>() == B::TYPE.block_bytes()) };
    assert!(bytes.len().is_multiple_of(size_of::<B>()), "a row is a whole number of blocks");
    // SAFETY: as in `blocks`; the borrow is exclusive, and every bit pattern written is valid bytes.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<B>()) }
}
