//! Guesses at work: which answers get some before a pass, and how many.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::acceptance::{Slots, divide};
use super::{MAX_KINDS, Speculation, Unfinished};
use crate::engine::scheduler::{Pace, PerSlot};
use crate::engine::sequence::Slot;
use crate::error::Result;
use crate::model::Model;

/// What a new measurement of the time of a guess counts.
const NEW: f64 = 0.25;

/// Guesses of all answers that are thought of for a pass: more are never worth it.
const MAX_ROOM: usize = 64;

/// An engine's guesses.
pub(crate) struct Speculating {
    speculation: Speculation,
    /// Seconds that a guess took to make.
    guess_s: f64,
    /// A buffer for the guesses of each slot.
    guesses: Vec<Vec<u32>>,
}

impl Speculating {
    pub(crate) fn new(speculation: Speculation) -> Self {
        Self { speculation, guess_s: 0.0, guesses: Vec::new() }
    }

    /// Adds guesses to the tokens of answers that wait for their next, as many as are worth it. How long that took.
    ///
    /// # Errors
    /// The proposer's.
    pub(crate) fn guess(&mut self, slots: &mut [Slot], model: &Model, pace: &Pace) -> Result<Duration> {
        let wanted = self.wanted(slots, model, pace);
        if wanted.iter().all(|n_wanted| *n_wanted == [0; MAX_KINDS]) {
            return Ok(Duration::ZERO);
        }
        let started = Instant::now();
        self.guesses.resize_with(slots.len(), Vec::new);
        let mut unfinished = PerSlot::new();
        for (i, ((slot, n_wanted), guesses)) in slots.iter().zip(wanted).zip(&mut self.guesses).enumerate() {
            guesses.clear();
            let Some(active) = slot.active.as_ref().filter(|_| n_wanted != [0; MAX_KINDS]) else { continue };
            let (tokens, sampler) = (&slot.cached.tokens[..], active.sampler());
            unfinished.push(Unfinished { slot: i, tokens, sampler, n_wanted, guesses, kind: 0 });
        }
        self.speculation.proposer.propose(&mut unfinished)?;
        let kinds: PerSlot<_> = unfinished.iter().map(|one| (one.slot, one.kind, one.n_wanted)).collect();
        drop(unfinished);

        let (mut n_guesses, mut room) = (0, model.n_batch() - n_answers(slots));
        let n_vocab = model.config().n_vocab as u32;
        for (i, kind, n_wanted) in kinds {
            let (slot, guesses) = (&mut slots[i], &self.guesses[i]);
            n_guesses += guesses.len();
            let n = guesses.iter().take(n_wanted[kind].min(room)).take_while(|id| **id < n_vocab).count();
            if let Some(active) = slot.active.as_mut().filter(|_| n >= self.speculation.n_min.max(1)) {
                slot.cached.tokens.extend(&guesses[..n]);
                (slot.n_guesses, active.kind_of_guesses) = (n, kind);
                room -= n;
            }
        }
        let time = started.elapsed();
        let guess_s = time.as_secs_f64() / n_guesses.max(1) as f64;
        self.guess_s =
            if self.guess_s == 0.0 { guess_s } else { self.guess_s + NEW * (guess_s - self.guess_s) };
        Ok(time)
    }

    /// How many guesses of each kind each slot's answer is to have.
    fn wanted(&self, slots: &mut [Slot], model: &Model, pace: &Pace) -> PerSlot<[usize; MAX_KINDS]> {
        let n_max = self.speculation.n_max;
        let limits: PerSlot<usize> =
            slots.iter().map(|slot| slot.max_guesses(model.n_ctx()).min(n_max)).collect();
        if !self.speculation.adapts {
            return limits.iter().map(|limit| [*limit; MAX_KINDS]).collect();
        }
        let mut wanted: PerSlot<_> = slots.iter().map(|_| [0; MAX_KINDS]).collect();
        let n_answers = n_answers(slots);
        let room = model.n_batch().saturating_sub(n_answers).min(limits.iter().sum()).min(MAX_ROOM);
        let seconds = (0..=room).map(|n_guesses| pace.expected(n_answers + n_guesses));
        let Some(seconds) = seconds.collect::<Option<SmallVec<[f64; 32]>>>().filter(|_| room > 0) else {
            return wanted;
        };
        let guessing: PerSlot<usize> = (0..slots.len()).filter(|i| limits[*i] > 0).collect();
        for kind in 0..self.speculation.proposer.n_kinds() {
            let chance =
                |i: &usize| slots[*i].active.as_ref().map_or(0.0, |active| active.acceptance.chance(kind));
            let chances: PerSlot<_> = guessing.iter().map(|i| (chance(i), limits[*i])).collect();
            let together = Slots { chances: &chances, n_others: n_answers - chances.len(), room };
            let counts = divide(&together, |n_rows| seconds[n_rows - n_answers], self.guess_s);
            for (i, n_worth) in guessing.iter().zip(counts) {
                if let Some(active) = &mut slots[*i].active {
                    wanted[*i][kind] = active.acceptance.at_least_at_times(kind, n_worth, n_answers);
                }
            }
        }
        wanted
    }
}

/// Answers that wait for their next token.
fn n_answers(slots: &[Slot]) -> usize {
    slots.iter().filter_map(Slot::pending).filter(|pending| pending.is_next()).count()
}
