//! The longest of many texts, wherever one of them occurs.

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::TokenizerError;
use super::vocabulary::{TokenType, Vocabulary};

/// Finds the texts of tokens in a text: the leftmost, and of those that start at the same place the longest.
pub(super) struct LongestMatch {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// Where a token's text was found.
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

impl LongestMatch {
    /// Searches for all tokens of some types.
    pub(super) fn new(vocabulary: &Vocabulary, types: &[TokenType]) -> Result<Self, TokenizerError> {
        let (ids, texts) = vocabulary.texts_of(types);
        // A search for nothing would still walk the text.
        let automaton =
            if ids.is_empty() { None } else { Some(automaton(MatchKind::LeftmostLongest, &texts)?) };
        Ok(LongestMatch { automaton, ids })
    }

    /// What is found, from left to right, each from where the one before ended.
    pub(super) fn find<'s>(&'s self, text: &'s [u8]) -> impl Iterator<Item = Found> + 's {
        let found = self.automaton.as_ref().map(|automaton| automaton.find_iter(text));
        let id = |pattern: usize| self.ids[pattern];
        found.into_iter().flatten().map(move |at| Found {
            start: at.start(),
            end: at.end(),
            id: id(at.pattern().as_usize()),
        })
    }
}

/// A search for texts, none of them empty.
pub(super) fn automaton(kind: MatchKind, texts: &[impl AsRef<[u8]>]) -> Result<AhoCorasick, TokenizerError> {
    let built = AhoCorasick::builder().match_kind(kind).build(texts);
    built.map_err(|e| TokenizerError::TooManyPieces { reason: e.to_string() })
}
