//! SentencePiece's byte-pair encoding: a pair merges if it is a piece, in the order of the pieces' scores.

use super::error::TokenizerError;
use super::keys::Keys;
use super::merge::{MergeRules, Merger};
use super::tokenizer;
use super::vocabulary::{Vocabulary, read_scores};
use super::words::WordBreaks;

/// A vocabulary whose pieces have scores (`tokenizer.ggml.scores`).
pub(super) struct Spm {
    /// By id; a higher score is a lower rank.
    ranks: Vec<u32>,
    breaks: WordBreaks,
    /// Whether a text is encoded as if it began with a space.
    pub(super) add_space_prefix: bool,
    /// What stands for a character that no token can express.
    unknown: Option<u32>,
}

impl Spm {
    /// Reads the scores for a vocabulary.
    pub(super) fn read(
        keys: &Keys<'_, '_>,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let ranks = read_scores(keys, vocabulary.len(), rank_of)?;
        let add_space_prefix = keys.flag("add_space_prefix")?.unwrap_or(true);
        Ok(Spm { ranks, breaks: WordBreaks::new(vocabulary), add_space_prefix, unknown })
    }

    /// Encodes the parts of one text.
    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { spm: self, merger: Merger::new(Rules { spm: self, vocabulary }) }
    }
}

/// Encodes parts of a text that have no special tokens.
pub(super) struct Encoder<'a> {
    spm: &'a Spm,
    merger: Merger<Rules<'a>>,
}

impl tokenizer::Encoder for Encoder<'_> {
    fn encode(&mut self, text: &str, starts: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut normalised = String::with_capacity(text.len() + 1);
        if starts && self.spm.add_space_prefix {
            normalised.push(' ');
        }
        for (i, part) in text.split('▁').enumerate() {
            normalised.push_str(if i > 0 { " " } else { "" });
            normalised.push_str(part);
        }
        self.spm.breaks.split(&normalised).try_for_each(|word| self.merger.encode(word, out))
    }
}

/// A number that is smaller for a higher score and equal for equal ones. `None` for NaN.
fn rank_of(score: f32) -> Option<u32> {
    let bits = (score + 0.0).to_bits(); // the sum makes -0 and 0 one
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    (!score.is_nan()).then_some(!ascending)
}

struct Rules<'a> {
    spm: &'a Spm,
    vocabulary: &'a Vocabulary,
}

impl MergeRules for Rules<'_> {
    fn first_symbol(&self, rest: &[u8]) -> (usize, u32) {
        self.vocabulary.first_char(rest)
    }

    fn merge(&self, _: u32, _: u32, joined: &[u8]) -> Option<(u32, u32)> {
        let id = self.vocabulary.find(joined)?;
        Some((self.spm.ranks[id as usize], id))
    }

    fn whole_word(&self, _: &[u8]) -> Option<u32> {
        None
    }

    fn fall_back(&self, symbol: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.vocabulary.fall_back(symbol, self.spm.unknown, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_scores_from_high_to_low() {
        let scores = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -2.0, -1e30, f32::NEG_INFINITY];
        let ranks: Vec<_> = scores.iter().map(|&s| rank_of(s).unwrap()).collect();
        assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
        assert_eq!(rank_of(-0.0), rank_of(0.0));
        assert_eq!(rank_of(f32::NAN), None);
    }
}
