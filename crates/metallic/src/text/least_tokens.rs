//! How many tokens a text has at least, told without encoding it, which takes many times the text's memory.
//!
//! Each byte is some part of a token. A token with a byte `b` is no longer than the longest piece that has `b`, so that byte
//! is at least one part in so many; and the parts of all bytes add up to the number of tokens or less.

use super::vocabulary::Vocabulary;

/// Vocabularies may change a text to another form of Unicode before they cut it, which makes characters beyond ASCII, and
/// those before a combining mark, shorter by at most this (U+212A, three bytes, becomes K).
const MAX_SHRINKAGE: u64 = 3;

/// One token, in parts that add up exactly enough.
const TOKEN: u64 = 1 << 32;

/// The least number of tokens of a text, for vocabularies whose tokens are pieces of it.
pub(super) fn of(vocabulary: &Vocabulary, text: &str) -> usize {
    let mut longest = [0; 256];
    let mut longest_of_all = 1;
    for piece in (0..vocabulary.len() as u32).filter_map(|id| vocabulary.piece(id)) {
        let len = piece.len() as u64;
        longest_of_all = longest_of_all.max(len);
        for &byte in piece {
            longest[usize::from(byte)] = len.max(longest[usize::from(byte)]);
        }
    }
    // What is in no piece is a token of its own.
    let parts = longest.map(|len| TOKEN / if len == 0 { longest_of_all } else { len });
    let may_shrink = TOKEN / (MAX_SHRINKAGE * longest_of_all);
    let bytes = text.as_bytes();
    let followers = bytes.iter().skip(1).chain(Some(&0));
    let parts = bytes.iter().zip(followers).map(|(byte, next)| {
        if byte.is_ascii() && next.is_ascii() { parts[usize::from(*byte)] } else { may_shrink }
    });
    (parts.sum::<u64>() / TOKEN) as usize
}
