//! Guesses by a small model of the same vocabulary: what it would say.

use smallvec::SmallVec;

use super::super::cached::common_prefix;
use super::{Proposer, Unfinished};
use crate::error::{Error, Result};
use crate::model::{Model, Piece, Role, SequenceId};
use crate::sampling::{Sampler, likeliest};
use crate::text::Tokenizer;

/// Tokens that it reads before a pass at most, of a prompt that it has not read: so that nobody waits for it long.
const MAX_READ: usize = 256;

/// A guess that is less likely than this, as the model sees it, ends the guesses, unless another number is asked for.
pub const DEFAULT_MIN_CHANCE: f32 = 0.5;

/// Tokens among which a guess has its chance, as llama.cpp counts it.
const N_LIKELIEST: usize = 10;

/// A model that guesses.
pub struct Draft {
    model: Model,
    n_vocab: usize,
    min_chance: f32,
    slots: Vec<Read>,
}

/// What it has read of a sequence.
struct Read {
    sequence: SequenceId,
    tokens: Vec<u32>,
}

/// A sequence that guesses are made for.
struct Guessing {
    /// Place among those asked about.
    index: usize,
    slot: usize,
    sampler: Sampler,
    /// The latest guess.
    last: u32,
}

impl Draft {
    /// A model that guesses for others of the same vocabulary: `own` is its tokenizer, `other` theirs. It has to hold as many
    /// sequences. What it finds less likely than `min_chance` is no guess.
    ///
    /// # Errors
    /// [`Error::DraftVocabulary`], if a token of both stands for different text.
    pub fn new(mut model: Model, own: &Tokenizer, other: &Tokenizer, min_chance: f32) -> Result<Self> {
        let n_vocab = own.n_vocab().min(other.n_vocab());
        let differs =
            |id: &u32| own.piece(*id) != other.piece(*id) || own.is_control(*id) != other.is_control(*id);
        if let Some(id) = (0..n_vocab as u32).find(differs) {
            let text =
                |of: &Tokenizer| String::from_utf8_lossy(of.piece(id).unwrap_or_default()).into_owned();
            return Err(Error::DraftVocabulary { id, own: text(own), other: text(other) });
        }
        let n_sequences = model.capacity().n_sequences;
        let slots = (0..n_sequences).map(|_| Read { sequence: model.create_sequence(), tokens: Vec::new() });
        let slots = slots.collect();
        Ok(Self { model, n_vocab, min_chance, slots })
    }

    /// Reads what is new of sequences. Those whose end it has come to, with what it finds likely next.
    fn catch_up(&mut self, sequences: &[Unfinished<'_>]) -> Result<SmallVec<[Guessing; 8]>> {
        let mut left = MAX_READ.min(self.model.n_batch());
        let mut pieces = SmallVec::<[Piece<'_>; 8]>::new();
        let mut ready = SmallVec::<[(usize, usize); 8]>::new();
        for (index, Unfinished { slot, tokens, .. }) in sequences.iter().enumerate() {
            let Read { sequence, tokens: read } = &mut self.slots[*slot];
            // The last is read again if there is nothing new, as its logits are what comes next.
            let start = common_prefix(read, tokens).min(tokens.len() - 1);
            if start < read.len() {
                self.model.truncate_sequence(*sequence, start);
                read.truncate(start);
            }
            let n = left.min(tokens.len() - start).min(self.model.n_ctx().saturating_sub(start));
            if n == 0 {
                continue;
            }
            left -= n;
            let is_whole = start + n == tokens.len();
            if is_whole {
                ready.push((pieces.len(), index));
            }
            read.extend(&tokens[start..start + n]);
            let role = if n == 1 { Role::Generated } else { Role::Prompt { len: n } };
            let logits = n - usize::from(is_whole)..n;
            pieces.push(Piece {
                sequence: *sequence,
                start,
                tokens: &tokens[start..start + n],
                role,
                logits,
            });
        }
        let mut found = SmallVec::new();
        if pieces.is_empty() {
            return Ok(found);
        }
        let (n_vocab, min_chance) = (self.n_vocab, self.min_chance);
        self.model.forward(&pieces, &mut |of, logits| {
            let Some((_, index)) = ready.iter().find(|(piece, _)| *piece == of.piece) else { return };
            let Unfinished { slot, sampler, .. } = &sequences[*index];
            let mut sampler = sampler.fork();
            if let Some(last) = guess(&mut sampler, &mut logits[..n_vocab], min_chance) {
                found.push(Guessing { index: *index, slot: *slot, sampler, last });
            }
        })?;
        Ok(found)
    }

    /// Guesses one token after another, for all sequences at a time.
    fn guess_all(&mut self, sequences: &mut [Unfinished<'_>]) -> Result<()> {
        let mut guessing = self.catch_up(sequences)?;
        loop {
            guessing.retain(|Guessing { index, slot, last, .. }| {
                let Unfinished { guesses, n_wanted, .. } = &mut sequences[*index];
                guesses.push(*last);
                guesses.len() < n_wanted[0] && self.slots[*slot].tokens.len() < self.model.n_ctx()
            });
            if guessing.is_empty() {
                return self.model.check_files();
            }
            for Guessing { slot, last, .. } in &guessing {
                self.slots[*slot].tokens.push(*last);
            }
            let piece = |guessing: &Guessing| {
                let Read { sequence, tokens } = &self.slots[guessing.slot];
                let (sequence, start, role) = (*sequence, tokens.len() - 1, Role::Generated);
                Piece { sequence, start, tokens: &tokens[start..], role, logits: 0..1 }
            };
            let pieces: SmallVec<[Piece<'_>; 8]> = guessing.iter().map(piece).collect();
            let mut next: SmallVec<[Option<u32>; 8]> = pieces.iter().map(|_| None).collect();
            self.model.forward(&pieces, &mut |of, logits| {
                let sampler = &mut guessing[of.piece].sampler;
                next[of.piece] = guess(sampler, &mut logits[..self.n_vocab], self.min_chance);
            })?;
            let next = guessing.into_iter().zip(next);
            guessing = next.filter_map(|(before, last)| Some(Guessing { last: last?, ..before })).collect();
        }
    }
}

impl Proposer for Draft {
    fn propose(&mut self, sequences: &mut [Unfinished<'_>]) -> Result<()> {
        let result = self.guess_all(sequences);
        if result.is_err() {
            // What it holds is unknown.
            for Read { sequence, tokens } in &mut self.slots {
                self.model.truncate_sequence(*sequence, 0);
                tokens.clear();
            }
        }
        result
    }

    fn description(&self) -> String {
        format!("a draft model, {}", self.model.description())
    }
}

/// What a sampler chooses, if it is likely among the likeliest.
fn guess(sampler: &mut Sampler, logits: &mut [f32], min_chance: f32) -> Option<u32> {
    let best: SmallVec<[(u32, f32); N_LIKELIEST]> = likeliest(logits, N_LIKELIEST).collect();
    let token = sampler.sample(logits);
    sampler.accept(token);
    let weight = |logit: f32| (logit - best[0].1).exp();
    let of_all: f32 = best.iter().map(|(_, logit)| weight(*logit)).sum();
    let own = best.iter().find(|(id, _)| *id == token).map_or(0.0, |(_, logit)| weight(*logit));
    (own >= min_chance * of_all).then_some(token)
}
