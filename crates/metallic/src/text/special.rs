//! Finds the tokens that are kept whole wherever their text occurs.

use metallic_gguf::Metadata;

use super::error::TokenizerError;
use super::longest::LongestMatch;
use super::spacing::Spacing;
use super::vocabulary::{TokenType, Vocabulary};

/// The special tokens of a vocabulary, as a search for their texts.
pub(super) struct SpecialTokens {
    /// Those that an author may write in any text.
    user_defined: LongestMatch,
    /// Those and the control tokens, which text from outside must not be able to make.
    all: LongestMatch,
    spacing: Spacing,
}

/// A part of a text.
pub(super) enum Part<'t> {
    /// Text without special tokens; not empty.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

impl SpecialTokens {
    pub(super) fn read(metadata: &Metadata<'_>, vocabulary: &Vocabulary) -> Result<Self, TokenizerError> {
        let all = [TokenType::UserDefined, TokenType::Control, TokenType::Unknown];
        let (ids, _) = vocabulary.texts_of(&all);
        Ok(SpecialTokens {
            spacing: Spacing::read(metadata, vocabulary, &ids),
            user_defined: LongestMatch::new(vocabulary, &all[..1])?,
            all: LongestMatch::new(vocabulary, &all)?,
        })
    }

    /// The parts of a text in order, but for white space that goes with a special token. Where special tokens overlap,
    /// the leftmost counts, and of those that start at the same place the longest.
    ///
    /// They are found in the text as it came: publishers search for theirs before they normalise the rest
    /// (`normalized: false`). The exceptions, runs of spaces in GPT-NeoX's vocabulary, are what no form of Unicode changes.
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
                    let side = self.spacing.of(found.id);
                    // A token of white space may begin in what went with the token before it.
                    let before = text.get(at..found.start).unwrap_or_default();
                    let before = if side.left { before.trim_end() } else { before };
                    at = if side.right { skip_spaces(text, found.end) } else { found.end };
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

/// Where the white space that begins at `at` ends.
fn skip_spaces(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start().len()
}
