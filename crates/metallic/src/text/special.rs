//! Finds the tokens that are kept whole wherever their text occurs.

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::TokenizerError;
use super::vocabulary::{TokenType, Vocabulary};

/// The special tokens of a vocabulary, as a search for their texts.
pub(super) struct SpecialTokens {
    /// Those that an author may write in any text.
    user_defined: Search,
    /// Those and the control tokens, which text from outside must not be able to make.
    all: Search,
}

struct Search {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

/// A part of a text.
pub(super) enum Part<'t> {
    /// Text without special tokens; not empty.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

impl SpecialTokens {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let of = |wanted: &[TokenType]| {
            Search::new(
                vocabulary.iter().filter(|(_, of, _)| wanted.contains(of)).map(|(id, _, text)| (id, text)),
            )
        };
        Ok(SpecialTokens {
            user_defined: of(&[TokenType::UserDefined])?,
            all: of(&[TokenType::UserDefined, TokenType::Control, TokenType::Unknown])?,
        })
    }

    /// The parts of a text in order. Where special tokens overlap, the leftmost counts, and of those that start
    /// at the same place the longest.
    pub(super) fn split<'t>(&self, text: &'t str, parse_special: bool) -> impl Iterator<Item = Part<'t>> {
        let search = if parse_special { &self.all } else { &self.user_defined };
        let mut matches = search.automaton.as_ref().map(|automaton| automaton.find_iter(text));
        let mut pending = None;
        let mut at = 0;
        std::iter::from_fn(move || {
            if let Some(token) = pending.take() {
                return Some(token);
            }
            match matches.as_mut().and_then(Iterator::next) {
                Some(found) => {
                    let token = Part::Token(search.ids[found.pattern().as_usize()]);
                    let before = &text[at..found.start()];
                    at = found.end();
                    if before.is_empty() {
                        return Some(token);
                    }
                    pending = Some(token);
                    Some(Part::Text(before))
                }
                None => {
                    let rest = &text[at..];
                    at = text.len();
                    (!rest.is_empty()).then_some(Part::Text(rest))
                }
            }
        })
    }
}

impl Search {
    fn new<'v>(tokens: impl Iterator<Item = (u32, &'v [u8])>) -> Result<Self, TokenizerError> {
        let (ids, texts): (Vec<u32>, Vec<&[u8]>) = tokens.filter(|(_, text)| !text.is_empty()).unzip();
        if ids.is_empty() {
            return Ok(Search { automaton: None, ids });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|e| TokenizerError::BadSpecialTokens { reason: e.to_string() })?;
        Ok(Search { automaton: Some(automaton), ids })
    }
}
