//! Byte-pair encoding with a list of merges, as GPT-2 introduced it.

use hashbrown::HashMap;
use metallic_gguf::{Array, Metadata};

use super::error::TokenizerError;
use super::merge::{MergeRules, Merger};
use super::pretokenize::PreTokenizer;
use super::tokenizer;
use super::vocabulary::{Alphabet, NO_TOKEN, Vocabulary};
use super::words::WordBreaks;

/// A vocabulary whose pairs merge in the order of `tokenizer.ggml.merges`.
pub(super) struct Bpe {
    pre_tokenizer: PreTokenizer,
    merges: Merges,
    /// Where words can be cut further, in vocabularies of text, whose words are lines.
    breaks: Option<WordBreaks>,
    /// The piece that each byte alone is.
    bytes: Box<[u32; 256]>,
    /// What stands for a character that no token can express.
    unknown: Option<u32>,
}

/// (left id, right id) → (rank, id of the pair).
type Merges = HashMap<(u32, u32), (u32, u32)>;

impl Bpe {
    /// Reads the merges for a vocabulary.
    pub(super) fn read(
        metadata: &Metadata<'_>,
        vocabulary: &Vocabulary,
        pre_tokenizer: PreTokenizer,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let alphabet = pre_tokenizer.alphabet;
        let merges = read_merges(metadata, vocabulary, alphabet)?;
        let piece = |byte: usize| vocabulary.find(&[byte as u8]).unwrap_or(NO_TOKEN);
        let bytes = Box::new(std::array::from_fn(piece));
        let breaks = (alphabet == Alphabet::SentencePiece).then(|| WordBreaks::new(vocabulary));
        Ok(Bpe { pre_tokenizer, merges, breaks, bytes, unknown })
    }

    /// Whether texts start with BOS, if the file does not say.
    pub(super) fn adds_bos(&self) -> bool {
        self.pre_tokenizer.add_bos
    }

    /// Encodes the parts of one text.
    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { bpe: self, merger: Merger::new(Rules { bpe: self, vocabulary }) }
    }
}

/// Encodes parts of a text that have no special tokens.
pub(super) struct Encoder<'a> {
    bpe: &'a Bpe,
    merger: Merger<Rules<'a>>,
}

impl tokenizer::Encoder for Encoder<'_> {
    fn encode(&mut self, text: &str, _: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let text = self.bpe.pre_tokenizer.normalize(text);
        let mut result = Ok(());
        self.bpe.pre_tokenizer.split(&text, &mut |word| {
            if result.is_ok() {
                result = match &self.bpe.breaks {
                    Some(breaks) => breaks.split(word).try_for_each(|part| self.merger.encode(part, out)),
                    None => self.merger.encode(word.as_bytes(), out),
                };
            }
        });
        result
    }
}

struct Rules<'a> {
    bpe: &'a Bpe,
    vocabulary: &'a Vocabulary,
}

impl MergeRules for Rules<'_> {
    fn first_symbol(&self, rest: &[u8]) -> (usize, u32) {
        match self.bpe.pre_tokenizer.alphabet {
            Alphabet::ByteLevel => (1, self.bpe.bytes[usize::from(rest[0])]),
            _ => self.vocabulary.first_char(rest),
        }
    }

    fn merge(&self, left: u32, right: u32, _: &[u8]) -> Option<(u32, u32)> {
        self.bpe.merges.get(&(left, right)).copied()
    }

    fn whole_word(&self, word: &[u8]) -> Option<u32> {
        if self.bpe.pre_tokenizer.ignore_merges { self.vocabulary.find(word) } else { None }
    }

    fn fall_back(&self, symbol: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.vocabulary.fall_back(symbol, self.bpe.unknown, out)
    }
}

fn read_merges(
    metadata: &Metadata<'_>,
    vocabulary: &Vocabulary,
    alphabet: Alphabet,
) -> Result<Merges, TokenizerError> {
    let array: Array<'_> = metadata.required("tokenizer.ggml.merges")?;
    let mut merges = Merges::with_capacity(array.len());
    let mut joined = Vec::new();
    for (index, merge) in array.strings()?.enumerate() {
        let text = || String::from_utf8_lossy(merge).into_owned();
        let bad = || TokenizerError::BadMerge { index, merge: text() };
        let merge_text = std::str::from_utf8(merge).map_err(|_| bad())?;
        // A piece may start with a space in vocabularies of text, so the separator is not the first character.
        let separator = merge_text.bytes().skip(1).position(|b| b == b' ').ok_or_else(bad)? + 1;
        joined.clear();
        let unknown = || TokenizerError::UnknownMerge { index, merge: text() };
        let is_left = alphabet.decode_into(&merge_text[..separator], &mut joined);
        let middle = joined.len();
        let is_right = alphabet.decode_into(&merge_text[separator + 1..], &mut joined);
        if !(is_left && is_right) {
            return Err(unknown());
        }
        let find = |piece: &[u8]| vocabulary.find(piece).ok_or_else(unknown);
        let pair = (find(&joined[..middle])?, find(&joined[middle..])?);
        // Of equal merges, the first counts.
        merges.entry(pair).or_insert((index as u32, find(&joined)?));
    }
    Ok(merges)
}
