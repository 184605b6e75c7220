//! Byte-pair encoding with a list of merges, as GPT-2 introduced it.

use hashbrown::HashMap;
use metallic_gguf::Array;

use super::error::TokenizerError;
use super::keys::{Faults, Keys};
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
        keys: &Keys<'_, '_>,
        vocabulary: &Vocabulary,
        pre_tokenizer: PreTokenizer,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let alphabet = pre_tokenizer.alphabet;
        let merges = read_merges(keys, vocabulary, alphabet)?;
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

/// Reads `tokenizer.ggml.merges`. What is no merge of two pieces to a third is left out.
fn read_merges(
    keys: &Keys<'_, '_>,
    vocabulary: &Vocabulary,
    alphabet: Alphabet,
) -> Result<Merges, TokenizerError> {
    let array: Array<'_> = keys.required("merges")?;
    let mut merges = Merges::with_capacity(array.len());
    let mut joined = Vec::new();
    let mut bad = Faults::default();
    for (index, merge) in array.strings()?.enumerate() {
        match read_merge(merge, vocabulary, alphabet, &mut joined) {
            // Of equal merges, the first counts.
            Some((pair, id)) => _ = merges.entry(pair).or_insert((index as u32, id)),
            None => bad.add(index, merge),
        }
    }
    bad.tell("merge(s) with a piece that it lacks, which are left out");
    Ok(merges)
}

/// The pair that a merge joins and the piece that it becomes, if the vocabulary has all three.
fn read_merge(
    merge: &[u8],
    vocabulary: &Vocabulary,
    alphabet: Alphabet,
    joined: &mut Vec<u8>,
) -> Option<((u32, u32), u32)> {
    let merge = std::str::from_utf8(merge).ok()?;
    // A piece may start with a space in vocabularies of text, so the separator is not the first character.
    let separator = merge.bytes().skip(1).position(|b| b == b' ')? + 1;
    joined.clear();
    let is_left = alphabet.decode_into(&merge[..separator], joined);
    let middle = joined.len();
    let is_right = alphabet.decode_into(&merge[separator + 1..], joined);
    if !(is_left && is_right) {
        return None;
    }
    let pair = (vocabulary.find(&joined[..middle])?, vocabulary.find(&joined[middle..])?);
    Some((pair, vocabulary.find(joined)?))
}
