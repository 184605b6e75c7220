//! RWKV's tokenizer: from each place on, the longest token that fits.

use super::error::TokenizerError;
use super::longest::LongestMatch;
use super::tokenizer;
use super::vocabulary::{TokenType, Vocabulary};

/// A vocabulary of byte strings without merges or scores.
pub(super) struct Rwkv {
    pieces: LongestMatch,
    /// What stands for a byte that no token can express.
    unknown: Option<u32>,
}

impl Rwkv {
    pub(super) fn new(vocabulary: &Vocabulary, unknown: Option<u32>) -> Result<Self, TokenizerError> {
        Ok(Rwkv { pieces: LongestMatch::new(vocabulary, &[TokenType::Normal])?, unknown })
    }

    /// Encodes the parts of one text.
    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { rwkv: self, vocabulary }
    }
}

/// Encodes parts of a text that have no special tokens.
pub(super) struct Encoder<'a> {
    rwkv: &'a Rwkv,
    vocabulary: &'a Vocabulary,
}

impl tokenizer::Encoder for Encoder<'_> {
    fn encode(&mut self, text: &str, _: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let text = text.as_bytes();
        let fall_back = |gap: &[u8], out: &mut Vec<u32>| {
            gap.chunks(1).try_for_each(|byte| self.vocabulary.fall_back(byte, self.rwkv.unknown, out))
        };
        let mut at = 0;
        for found in self.rwkv.pieces.find(text) {
            fall_back(&text[at..found.start], out)?;
            out.push(found.id);
            at = found.end;
        }
        fall_back(&text[at..], out)
    }
}
