//! BERT's WordPiece: from each place of a word on, the longest piece that fits.
//!
//! Text is first cleaned as BERT's `BasicTokenizer` does it: control characters go, letters become small and
//! lose their accents, and white space, punctuation and Chinese characters end words. The vocabulary of a GGUF
//! file marks the pieces that begin a word with `▁`, where the publishers' mark the others with `##`. So a
//! word is looked up with a space before it, and only its first piece can begin with one.

use regex_automata::meta::Regex;
use unicode_normalization::UnicodeNormalization;

use super::error::TokenizerError;
use super::keys::Keys;
use super::longest::LongestMatch;
use super::pretokenize::compile;
use super::tokenizer;
use super::vocabulary::{TokenType, Vocabulary};

/// Longer words are unknown, as in the publishers' tokenizers.
const MAX_WORD_CHARS: usize = 100;

/// Characters that are left out: of control and format, and the one for what is not UTF-8.
const CONTROL: &str = r"[[\p{Cc}\p{Cf}\x{FFFD}]--[\t\n\r]]+";
const CONTROL_AND_ACCENTS: &str = r"[[\p{Cc}\p{Cf}\x{FFFD}\p{Mn}]--[\t\n\r]]+";

/// A word of one character: punctuation, ASCII's symbols, and the blocks of Chinese characters as BERT has
/// them. (The one from U+2B920 on begins later than the Unicode block; published vocabularies were made so.)
macro_rules! alone {
    () => {
        concat!(
            r"\p{P}$+<=>^`|~\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}",
            r"\x{2B740}-\x{2B81F}\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}",
        )
    };
}
const WORD: &str = concat!("[", alone!(), r"]|[^\s", alone!(), "]+");

/// A vocabulary of words and parts of words.
pub(super) struct WordPiece {
    pieces: LongestMatch,
    /// What stands for a word that pieces can't make.
    unknown: Option<u32>,
    lowercase: bool,
    strip_accents: bool,
    left_out: Regex,
    word: Regex,
}

impl WordPiece {
    /// Reads how text is cleaned. Files that do not say so have small letters without accents.
    pub(super) fn read(
        keys: &Keys<'_, '_>,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let flag = |key| keys.flag(key);
        let lowercase = flag("normalizer.lowercase")?.unwrap_or(true);
        let strip_accents = flag("normalizer.strip_accents")?.unwrap_or(lowercase);
        let left_out = if strip_accents { CONTROL_AND_ACCENTS } else { CONTROL };
        Ok(WordPiece {
            pieces: LongestMatch::new(vocabulary, &[TokenType::Normal])?,
            unknown,
            lowercase,
            strip_accents,
            left_out: compile(&[left_out]),
            word: compile(&[WORD]),
        })
    }

    /// Encodes the parts of one text.
    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { wordpiece: self, vocabulary, word: Vec::new() }
    }

    fn clean(&self, text: &str) -> String {
        let decomposed: String;
        let text = if self.strip_accents && !text.is_ascii() {
            decomposed = text.nfd().collect();
            &decomposed
        } else {
            text
        };
        let mut cleaned = String::with_capacity(text.len());
        let mut at = 0;
        let end = std::iter::once(text.len()..text.len());
        for gap in self.left_out.find_iter(text).map(|found| found.range()).chain(end) {
            let kept = &text[at..gap.start];
            if self.lowercase {
                // A letter at a time: the end of a word makes no difference to what a sigma becomes.
                cleaned.extend(kept.chars().flat_map(char::to_lowercase));
            } else {
                cleaned.push_str(kept);
            }
            at = gap.end;
        }
        cleaned
    }
}

/// Encodes parts of a text that have no special tokens.
pub(super) struct Encoder<'a> {
    wordpiece: &'a WordPiece,
    vocabulary: &'a Vocabulary,
    /// A space and the word.
    word: Vec<u8>,
}

impl tokenizer::Encoder for Encoder<'_> {
    fn encode(&mut self, text: &str, _: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let text = self.wordpiece.clean(text);
        for found in self.wordpiece.word.find_iter(&text) {
            let word = &text[found.range()];
            let start = out.len();
            if word.chars().nth(MAX_WORD_CHARS).is_some() || !self.push_pieces(word, out) {
                out.truncate(start);
                self.vocabulary.fall_back(word.as_bytes(), self.wordpiece.unknown, out)?;
            }
        }
        Ok(())
    }
}

impl Encoder<'_> {
    /// Appends the pieces of a word. `false` if they do not make the whole word.
    fn push_pieces(&mut self, word: &str, out: &mut Vec<u32>) -> bool {
        self.word.clear();
        self.word.push(b' ');
        self.word.extend_from_slice(word.as_bytes());
        let mut at = 0;
        for found in self.wordpiece.pieces.find(&self.word) {
            if found.start != at {
                return false;
            }
            out.push(found.id);
            at = found.end;
        }
        at == self.word.len()
    }
}
