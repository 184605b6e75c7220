//! The unigram model: of all ways to write a text in pieces, the one with the greatest sum of scores.
//!
//! The scores are logarithms of probabilities, so this is the likeliest way (Kudo 2018, "Subword
//! Regularization"), found as Viterbi's algorithm does: the best way to write each beginning of a word follows
//! from those of shorter beginnings. Time is linear in the text, times the number of pieces that end at one place.
//!
//! SentencePiece searches from the beginning. Sums are of 64 bits, as in Hugging Face's `tokenizers`; SentencePiece has
//! 32, and where two ways are equally good (`---` as `--` and `-`, or the other way round) its rounding decides.
//!
//! PLaMo 2 searches from the end, so that of equally good ways it is the one whose first pieces are the longest. Its scores
//! are whole numbers, which sums of 64 bits keep exactly. Here its pieces and texts are mirrored, and the rest is the same.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

use super::charsmap::Normalizer;
use super::error::TokenizerError;
use super::keys::Keys;
use super::longest;
use super::merge::WordCache;
use super::tokenizer;
use super::vocabulary::{TokenType, Vocabulary, first_char_len, read_scores};
use super::words::WordBreaks;

/// To SentencePiece, an unknown character scores this much less than the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// PLaMo 2 counts scores in these units.
const PLAMO_SCORE_UNIT: f64 = 1e-4;

/// What an unknown character scores to PLaMo 2, in its units.
const PLAMO_UNKNOWN_SCORE: f64 = -1e7;

/// A vocabulary whose pieces have log-probabilities (`tokenizer.ggml.scores`).
pub(super) struct Unigram {
    /// What changes a text before it is encoded.
    normalizer: Option<Normalizer>,
    /// Whether texts are searched from the end, and `pieces` are mirrored.
    mirrored: bool,
    pieces: AhoCorasick,
    /// Id and score of each piece that `pieces` finds.
    scored: Vec<(u32, f64)>,
    /// The score of a character that is written as unknown.
    unknown_score: f64,
    breaks: Option<WordBreaks>,
    /// What stands for a character that no token can express.
    unknown: Option<u32>,
}

impl Unigram {
    /// Reads the scores and the normalisation for a vocabulary of SentencePiece.
    pub(super) fn read(
        keys: &Keys<'_, '_>,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let (ids, texts) = vocabulary.texts_of(PIECES);
        let scored = read_scored(keys, vocabulary, &ids, |score| score)?;
        let worst = scored.iter().map(|&(_, score)| score).fold(0.0, f64::min);
        Ok(Unigram {
            normalizer: Some(Normalizer::read(keys)?),
            mirrored: false,
            pieces: longest::automaton(MatchKind::Standard, &texts)?,
            scored,
            unknown_score: worst - UNKNOWN_PENALTY,
            breaks: breaks(vocabulary),
            unknown,
        })
    }

    /// Reads the scores for a vocabulary of PLaMo 2.
    pub(super) fn read_plamo(
        keys: &Keys<'_, '_>,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let (ids, texts) = vocabulary.texts_of(PIECES);
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| mirror(text)).collect();
        Ok(Unigram {
            normalizer: None,
            mirrored: true,
            pieces: longest::automaton(MatchKind::Standard, &texts)?,
            scored: read_scored(keys, vocabulary, &ids, |score| (score / PLAMO_SCORE_UNIT).round())?,
            unknown_score: PLAMO_UNKNOWN_SCORE,
            breaks: breaks(vocabulary),
            unknown,
        })
    }

    /// Whether a text is encoded as if it began with a space.
    pub(super) fn adds_space_prefix(&self) -> bool {
        self.normalizer.as_ref().is_some_and(|normalizer| normalizer.add_space_prefix)
    }

    /// Encodes the parts of one text.
    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { unigram: self, vocabulary, best: Vec::new(), path: Vec::new(), seen: WordCache::default() }
    }
}

/// The types of tokens that are pieces of text.
const PIECES: &[TokenType] = &[TokenType::Normal, TokenType::UserDefined];

/// The ids with what is made of their scores.
fn read_scored(
    keys: &Keys<'_, '_>,
    vocabulary: &Vocabulary,
    ids: &[u32],
    make: impl Fn(f64) -> f64,
) -> Result<Vec<(u32, f64)>, TokenizerError> {
    let finite = |score: f32| score.is_finite().then(|| make(f64::from(score)));
    let scores = read_scores(keys, vocabulary.len(), finite)?;
    Ok(ids.iter().map(|&id| (id, scores[id as usize])).collect())
}

/// Where words can be told apart. Where a space is no piece it is unknown, and one with the unknown characters before it.
fn breaks(vocabulary: &Vocabulary) -> Option<WordBreaks> {
    vocabulary.find(b" ").map(|_| WordBreaks::new(vocabulary))
}

fn mirror(text: &[u8]) -> Vec<u8> {
    text.iter().rev().copied().collect()
}

/// Encodes parts of a text that have no special tokens.
pub(super) struct Encoder<'a> {
    unigram: &'a Unigram,
    vocabulary: &'a Vocabulary,
    /// For each place of a word, the best way to write what is before it.
    best: Vec<Best>,
    path: Vec<Best>,
    seen: WordCache,
}

/// The last piece of a way to write the beginning of a word, up to `end`.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: u32,
    end: u32,
    /// `None` for a character that no piece is.
    id: Option<u32>,
}

impl tokenizer::Encoder for Encoder<'_> {
    fn encode(&mut self, text: &str, starts: bool, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let text = match &self.unigram.normalizer {
            Some(normalizer) => Cow::Owned(normalizer.normalize(text, starts)),
            None => Cow::Borrowed(text),
        };
        let Some(breaks) = &self.unigram.breaks else { return self.encode_word(text.as_bytes(), out) };
        breaks.split(&text).try_for_each(|word| self.encode_word(word, out))
    }
}

impl Encoder<'_> {
    fn encode_word(&mut self, word: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if self.seen.repeat(word, out) {
            return Ok(());
        }
        let start = out.len();
        if self.unigram.mirrored {
            self.find_best(&mirror(word));
        } else {
            self.find_best(word);
        }
        self.trace_back(word.len());
        for pieces in self.path.chunk_by(|a, b| a.id.is_none() && b.id.is_none()) {
            match pieces[0].id {
                Some(id) => out.push(id),
                None => {
                    // Unknown characters in a row are one unknown piece.
                    let (start, end) = (pieces[0].start, pieces[pieces.len() - 1].end);
                    let unknown = &word[start as usize..end as usize];
                    self.vocabulary.fall_back(unknown, self.unigram.unknown, out)?;
                }
            }
        }
        self.seen.remember(word, start, out);
        Ok(())
    }

    /// Fills `best`.
    fn find_best(&mut self, word: &[u8]) {
        let Unigram { pieces, scored, unknown_score, mirrored, .. } = self.unigram;
        let char_len = if *mirrored { mirrored_char_len } else { first_char_len };
        self.best.clear();
        self.best.resize(word.len() + 1, Best { score: f64::NEG_INFINITY, start: 0, end: 0, id: None });
        self.best[0].score = 0.0;
        let mut found = pieces.find_overlapping_iter(word).peekable();
        let mut start = 0;
        while start < word.len() {
            let end = start + char_len(&word[start..]);
            // Of those that end at one place, the longest comes first.
            while let Some(piece) = found.next_if(|piece| piece.end() <= end) {
                let (id, score) = scored[piece.pattern().as_usize()];
                self.consider(piece.start(), piece.end(), Some(id), score);
            }
            self.consider(start, end, None, *unknown_score);
            start = end;
        }
    }

    /// Takes `start..end` as the last piece up to `end` if that is better than what was found before.
    fn consider(&mut self, start: usize, end: usize, id: Option<u32>, score: f64) {
        let score = self.best[start].score + score;
        if score > self.best[end].score {
            self.best[end] = Best { score, start: start as u32, end: end as u32, id };
        }
    }

    /// Puts the pieces of the best way to write `len` bytes into `path`, from left to right.
    fn trace_back(&mut self, len: usize) {
        self.path.clear();
        let mut end = len;
        while end > 0 {
            let last = self.best[end];
            self.path.push(last);
            end = last.start as usize;
        }
        if self.unigram.mirrored {
            let mirror = |at: u32| len as u32 - at;
            for piece in &mut self.path {
                (piece.start, piece.end) = (mirror(piece.end), mirror(piece.start));
            }
        } else {
            self.path.reverse();
        }
    }
}

/// The length of the character that mirrored UTF-8, which is not empty, starts with.
fn mirrored_char_len(text: &[u8]) -> usize {
    let is_continuation = |byte: &&u8| matches!(byte, 0x80..=0xBF);
    (1 + text.iter().take_while(is_continuation).count()).min(text.len())
}
