//! Where a text of a SentencePiece vocabulary can be cut, so that its parts can be encoded one by one.

use super::vocabulary::{TokenType, Vocabulary};

/// The bytes after which a space begins a word that no piece reaches into from the left.
pub(super) struct WordBreaks {
    /// Whether a piece exists in which a space follows this byte.
    goes_on_with_space: [bool; 256],
}

impl WordBreaks {
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut goes_on_with_space = [false; 256];
        for (_, of, piece) in vocabulary.iter() {
            if matches!(of, TokenType::Normal | TokenType::UserDefined) {
                for pair in piece.windows(2).filter(|pair| pair[1] == b' ') {
                    goes_on_with_space[usize::from(pair[0])] = true;
                }
            }
        }
        WordBreaks { goes_on_with_space }
    }

    /// The words of a text, none of them empty. Together they are the text.
    pub(super) fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t [u8]> {
        let mut rest = text.as_bytes();
        std::iter::from_fn(move || {
            let (word, after) = rest.split_at(self.word_len(rest));
            rest = after;
            (!word.is_empty()).then_some(word)
        })
    }

    fn word_len(&self, text: &[u8]) -> usize {
        let ends = |at: usize| text[at] == b' ' && !self.goes_on_with_space[usize::from(text[at - 1])];
        (1..text.len()).find(|&at| ends(at)).unwrap_or(text.len())
    }
}
