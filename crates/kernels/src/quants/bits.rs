//! Bit layouts that several formats share.

use half::f16;

/// A half-precision field as a float.
#[inline(always)]
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// 16 bytes as 32 numbers of 4 bits: the low nibbles, then the high ones.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    let mut out = [0; 32];
    for (i, &byte) in bytes.iter().enumerate() {
        out[i] = byte & 15;
        out[i + 16] = byte >> 4;
    }
    out
}

/// The inverse of [`nibbles`].
#[inline(always)]
pub(super) fn pack_nibbles(values: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| values[i] & 15 | values[i + 16] << 4)
}

/// 32 numbers of 5 bits: [`nibbles`] of `low`, and bit `i` of `high` (little-endian) as the fifth.
#[inline(always)]
pub(super) fn five_bits(low: &[u8; 16], high: [u8; 4]) -> [u8; 32] {
    let (mut out, high) = (nibbles(low), u32::from_le_bytes(high));
    for (i, out) in out.iter_mut().enumerate() {
        *out |= ((high >> i & 1) << 4) as u8;
    }
    out
}

/// The fifth bits of [`five_bits`].
#[inline(always)]
pub(super) fn fifth_bits(values: &[u8; 32]) -> [u8; 4] {
    let mut high = 0u32;
    for (i, value) in values.iter().enumerate() {
        high |= u32::from(value >> 4 & 1) << i;
    }
    high.to_le_bytes()
}
