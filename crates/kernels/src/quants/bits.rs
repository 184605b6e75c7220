//! Bit layouts that several formats share.

use half::f16;

/// A half-precision field as a float.
#[inline(always)]
pub(super) fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// 16 bytes as 32 numbers of 4 bits, less `offset`: the low nibbles, then the high ones.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8; 16], offset: i8) -> [i8; 32] {
    let mut out = [0; 32];
    for (i, &byte) in bytes.iter().enumerate() {
        out[i] = (byte & 15) as i8 - offset;
        out[i + 16] = (byte >> 4) as i8 - offset;
    }
    out
}

/// The inverse of [`nibbles`] without an offset.
#[inline(always)]
pub(super) fn pack_nibbles(values: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| values[i] & 15 | values[i + 16] << 4)
}

/// 32 numbers of 5 bits, less `offset`: [`nibbles`] of `low`, and the bits of `high` as the fifth.
#[inline(always)]
pub(super) fn five_bits(low: &[u8; 16], high: [u8; 4], offset: i8) -> [i8; 32] {
    let (mut out, high) = ([0; 32], u32::from_le_bytes(high));
    let fifth = |i: usize| ((high >> i & 1) << 4) as u8;
    for (i, &byte) in low.iter().enumerate() {
        out[i] = (byte & 15 | fifth(i)) as i8 - offset;
        out[i + 16] = (byte >> 4 | fifth(i + 16)) as i8 - offset;
    }
    out
}

/// Eight bits as eight bytes, lowest first: 0xFF where the bit is set and 0 elsewhere.
///
/// Shifting each weight's bit into place doesn't vectorise, so it is looked up.
#[inline(always)]
pub(super) fn mask(bits: u8) -> u64 {
    MASKS[usize::from(bits)]
}

static MASKS: [u64; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 * 8 {
        let (bits, place) = (i / 8, i % 8);
        if bits >> place & 1 == 1 {
            table[bits] |= 0xff << (8 * place);
        }
        i += 1;
    }
    table
};

/// [`nibbles`], each standing for a level.
#[inline(always)]
pub(super) fn levels(bytes: &[u8; 16], levels: &[i8; 16]) -> [i8; 32] {
    let mut out = [0; 32];
    for (i, &byte) in bytes.iter().enumerate() {
        out[i] = levels[usize::from(byte & 15)];
        out[i + 16] = levels[usize::from(byte >> 4)];
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
