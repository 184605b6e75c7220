//! Finds the tokens that are kept whole wherever their text occurs.

use super::error::TokenizerError;
use super::longest::LongestMatch;
use super::vocabulary::{TokenType, Vocabulary};

/// The special tokens of a vocabulary, as a search for their texts.
pub(super) struct SpecialTokens {
    /// Those that an author may write in any text.
    user_defined: LongestMatch,
    /// Those and the control tokens, which text from outside must not be able to make.
    all: LongestMatch,
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
        let all = [TokenType::UserDefined, TokenType::Control, TokenType::Unknown];
        Ok(SpecialTokens {
            user_defined: LongestMatch::new(vocabulary, &all[..1])?,
            all: LongestMatch::new(vocabulary, &all)?,
        })
    }

    /// The parts of a text in order. Where special tokens overlap, the leftmost counts, and of those that start
    /// at the same place the longest.
    pub(super) fn split<'t>(&'t self, text: &'t str, parse_special: bool) -> impl Iterator<Item = Part<'t>> {
        let search = if parse_special { &self.all } else { &self.user_defined };
        let mut matches = search.find(text.as_bytes());
        let mut pending = None;
        let mut at = 0;
        std::iter::from_fn(move || {
            if let Some(token) = pending.take() {
                return Some(token);
            }
            match matches.next() {
                Some(found) => {
                    let token = Part::Token(found.id);
                    let before = &text[at..found.start];
                    at = found.end;
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
