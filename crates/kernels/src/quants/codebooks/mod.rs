//! The codebooks of the IQ formats: what a code stands for, 8 (or in IQ3 formats 4) weights at a time.
//!
//! [`packed`] keeps each weight as the number of its level; the tables here are spread out at compile
//! time, so that a look-up is one load.

mod packed;

use metallic_gguf::GgmlType;

use super::bits;

/// IQ2_XXS, 8-bit codes.
pub(super) static IQ2_XXS: [[i8; 8]; 256] = spread(packed::IQ2_XXS, IQ2_LEVELS);
/// IQ2_XS, 9-bit codes.
pub(super) static IQ2_XS: [[i8; 8]; 512] = spread(packed::IQ2_XS, IQ2_LEVELS);
/// IQ2_S, 10-bit codes.
pub(super) static IQ2_S: [[i8; 8]; 1024] = spread(packed::IQ2_S, IQ2_LEVELS);
/// IQ3_XXS, 8-bit codes.
pub(super) static IQ3_XXS: [[i8; 4]; 256] = spread(packed::IQ3_XXS, [4, 12, 20, 28, 36, 44, 52, 62]);
/// IQ3_S, 9-bit codes.
pub(super) static IQ3_S: [[i8; 4]; 512] = spread(packed::IQ3_S, [1, 3, 5, 7, 9, 11, 13, 15]);
/// IQ1_S and IQ1_M, 11-bit codes: eight times the ternary weights, with the top bit flipped.
static IQ1: [[i8; 8]; 2048] = spread(packed::IQ1, [-8 ^ i8::MIN, i8::MIN, 8 ^ i8::MIN]);

const IQ2_LEVELS: [i8; 3] = [8, 25, 43];

/// From the numbers of levels, `16 / LEN` bits each and the first weight lowest, to the levels.
const fn spread<const LEN: usize, const CODES: usize, const LEVELS: usize>(
    packed: [u16; CODES],
    levels: [i8; LEVELS],
) -> [[i8; LEN]; CODES] {
    let bits = 16 / LEN;
    let mut out = [[0; LEN]; CODES];
    let mut code = 0;
    while code < CODES {
        let mut i = 0;
        while i < LEN {
            out[code][i] = levels[(packed[code] >> (i * bits)) as usize & ((1 << bits) - 1)];
            i += 1;
        }
        code += 1;
    }
    out
}

/// The weights that each code stands for, in the order of codes, and how many to a code.
pub(super) fn weights(ggml_type: GgmlType) -> Option<(Vec<i8>, usize)> {
    fn flat<const LEN: usize>(book: &[[i8; LEN]]) -> Option<(Vec<i8>, usize)> {
        Some((book.as_flattened().to_vec(), LEN))
    }
    match ggml_type {
        GgmlType::IQ2_XXS => flat(&IQ2_XXS),
        GgmlType::IQ2_XS => flat(&IQ2_XS),
        GgmlType::IQ2_S => flat(&IQ2_S),
        GgmlType::IQ3_XXS => flat(&IQ3_XXS),
        GgmlType::IQ3_S => flat(&IQ3_S),
        GgmlType::IQ1_S | GgmlType::IQ1_M => flat(&IQ1.map(|flipped| flipped.map(|weight| weight ^ i8::MIN))),
        _ => None,
    }
}

/// Eight times the ternary weights of a code of IQ1_S or IQ1_M, plus or minus one.
///
/// With the top bits flipped the bytes are far from 0 and from 255, so that adding to all eight at once
/// carries nothing from one to the next.
#[inline(always)]
pub(super) fn iq1(code: usize, minus: bool) -> [i8; 8] {
    let flipped = bits::word(&IQ1[code]);
    let shifted = flipped + bits::eight(1) - bits::eight(2 * u8::from(minus));
    bits::weights(shifted ^ bits::eight(0x80))
}

/// Signs of 8 weights from the 7 that are stored: the eighth makes the number of minuses even.
#[inline(always)]
pub(super) fn eight_signs(seven: u8) -> u8 {
    seven | ((seven.count_ones() & 1) << 7) as u8
}

/// Signs of 32 weights from four times seven, lowest first.
#[inline(always)]
pub(super) fn signs_of_28(word: u32) -> [u8; 4] {
    std::array::from_fn(|k| eight_signs((word >> (7 * k) & 0x7f) as u8))
}

/// Negates the weights whose sign bit is set; they must be positive.
///
/// Eight at a time: −w is !w + 1, and as no byte is 0 the addition never carries into the next.
#[inline(always)]
pub(super) fn negate(weights: &mut [i8; 32], signs: [u8; 4]) {
    for (weights, signs) in weights.as_chunks_mut::<8>().0.iter_mut().zip(signs) {
        let minus = bits::mask(signs);
        *weights = bits::weights((bits::word(weights) ^ minus) + (minus & bits::eight(1)));
    }
}
