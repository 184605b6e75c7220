//! SentencePiece's unigram model: of all ways to write a text in pieces, the one with the greatest sum of scores.
//!
//! The scores are logarithms of probabilities, so this is the likeliest way (Kudo 2018, "Subword
//! Regularization"), found as Viterbi's algorithm does: the best way to write each beginning of a word follows
//! from those of shorter beginnings. Time is linear in the text, times the number of pieces that end at one place.
//!
//! Sums are of 64 bits, as in Hugging Face's `tokenizers`; SentencePiece has 32, and where two ways are equally
//! good (`---` as `--` and `-`, or the other way round) its rounding decides.

use aho_corasick::{AhoCorasick, MatchKind};
use metallic_gguf::Metadata;

use super::charsmap::Normalizer;
use super::error::TokenizerError;
use super::longest;
use super::merge::WordCache;
use super::tokenizer;
use super::vocabulary::{TokenType, Vocabulary, first_char_len, read_scores};
use super::words::WordBreaks;

/// A character that no piece is scores this much less than the worst piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A vocabulary whose pieces have log-probabilities (`tokenizer.ggml.scores`).
pub(super) struct Unigram {
    pub(super) normalizer: Normalizer,
    pieces: AhoCorasick,
    /// Id and score of each piece that `pieces` finds.
    scored: Vec<(u32, f64)>,
    /// The score of a character that no piece is.
    unknown_score: f64,
    breaks: Option<WordBreaks>,
    /// What stands for a character that no token can express.
    unknown: Option<u32>,
}

impl Unigram {
    /// Reads the scores and the normalisation for a vocabulary.
    pub(super) fn read(
        metadata: &Metadata<'_>,
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
    ) -> Result<Self, TokenizerError> {
        let finite = |score: f32| score.is_finite().then_some(f64::from(score));
        let scores = read_scores(metadata, vocabulary.len(), finite)?;
        let (ids, texts) = vocabulary.texts_of(&[TokenType::Normal, TokenType::UserDefined]);
        let scored: Vec<(u32, f64)> = ids.iter().map(|&id| (id, scores[id as usize])).collect();
        let worst = scored.iter().map(|&(_, score)| score).fold(0.0, f64::min);
        // Where a space is no piece it is unknown, and one with the unknown characters before it.
        let breaks = vocabulary.find(b" ").map(|_| WordBreaks::new(vocabulary));
        Ok(Unigram {
            normalizer: Normalizer::read(metadata)?,
            pieces: longest::automaton(MatchKind::Standard, &texts)?,
            scored,
            unknown_score: worst - UNKNOWN_PENALTY,
            breaks,
            unknown,
        })
    }

    /// Encodes the parts of one text.
    pub(super) fn encoder<'a>(&'a self, vocabulary: &'a Vocabulary) -> Encoder<'a> {
        Encoder { unigram: self, vocabulary, best: Vec::new(), path: Vec::new(), seen: WordCache::default() }
    }
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
        let text = self.unigram.normalizer.normalize(text, starts);
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
        self.find_best(word);
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
        let Unigram { pieces, scored, unknown_score, .. } = self.unigram;
        self.best.clear();
        self.best.resize(word.len() + 1, Best { score: f64::NEG_INFINITY, start: 0, end: 0, id: None });
        self.best[0].score = 0.0;
        let mut found = pieces.find_overlapping_iter(word).peekable();
        let mut start = 0;
        while start < word.len() {
            let end = start + first_char_len(&word[start..]);
            let mut is_piece = false;
            while let Some(piece) = found.next_if(|piece| piece.end() <= end) {
                let (id, score) = scored[piece.pattern().as_usize()];
                self.consider(piece.start(), piece.end(), Some(id), score);
                is_piece |= piece.start() == start;
            }
            if !is_piece {
                self.consider(start, end, None, *unknown_score);
            }
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
        self.path.reverse();
    }
}
