//! Bit layouts that several formats share.

/// A half-precision number as a float.
///
/// Without branches, so that it vectorises, and without asking the CPU what it can do each time, as
/// `half` does. Exponent and fraction go to their places in a float, whose exponent is then too small by
/// 112; multiplying by 2¹¹² makes up for it, and normalises what was subnormal.
#[inline(always)]
pub(crate) fn half(bytes: [u8; 2]) -> f32 {
    const TWO_POW_112: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * TWO_POW_112).to_bits();
    let not_finite = if bits & 0x7c00 == 0x7c00 { f32::INFINITY.to_bits() } else { 0 };
    f32::from_bits((bits & 0x8000) << 16 | magnitude | not_finite)
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
    let (low, high) = values.split_at(16);
    let mut out = [0; 16];
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low & 15 | high << 4;
    }
    out
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

/// Eight weights as one number, the first lowest: a step on them all is then one operation on every CPU.
#[inline(always)]
pub(super) fn word(weights: &[i8; 8]) -> u64 {
    u64::from_le_bytes(weights.map(|w| w as u8))
}

/// The inverse of [`word`].
#[inline(always)]
pub(super) fn weights(word: u64) -> [i8; 8] {
    word.to_le_bytes().map(|w| w as i8)
}

/// A word of eight times the same byte.
pub(super) const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
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

/// 2 bits of each byte, from `shift` on, less `offset`.
#[inline(always)]
pub(super) fn pairs(bytes: &[u8; 32], shift: usize, offset: i8) -> [i8; 32] {
    let mut out = [0; 32];
    for (out, byte) in out.iter_mut().zip(bytes) {
        *out = (byte >> shift & 3) as i8 - offset;
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

#[cfg(test)]
mod tests {
    #[test]
    fn every_half_is_what_the_half_crate_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (super::half(bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#06x}");
        }
    }
}
