//! Requests in, events out.
//!
//! A step schedules tokens, runs one forward pass, and samples. Every request gets its events in order and
//! ends with exactly one [`Event::Finished`] or [`Event::Failed`]. What was computed of a sequence stays cached until its
//! memory is needed: the next turn of a conversation reads only what is new, and what several requests begin with is
//! read once.

mod cached;
mod gbnf;
mod grammar;
mod request;
mod saved;
mod scheduler;
mod sequence;
mod speculation;
mod stats;
mod watch;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use grammar::{Form, Grammar, Grammars, MAX_GRAMMAR_BYTES};
pub use request::{Event, FinishReason, Request, RequestId};
pub use speculation::{
    DEFAULT_MAX_GUESSES, DEFAULT_MIN_CHANCE, Draft, Lookup, MAX_KINDS, Proposer, Speculation, Unfinished,
};
pub use stats::Stats;

use crate::error::{Error, Result};
use crate::model::{LogitsOf, Model, Piece, Role};
use crate::text::Tokenizer;
use cached::{Cached, Found, Parked, Wanted, common_prefix};
use scheduler::{Pace, PerSlot, Share};
use sequence::{Active, Choices, Follows, Limits, Slot};
use speculation::{Acceptance, Speculating};

/// Requests that may wait: enough for a burst, few enough that a client learns that we are behind.
pub const MAX_WAITING: usize = 256;

/// Tokens that are read again rather than kept beside, or waited for.
const FEW: usize = 32;

/// Runs requests on a model.
pub struct Engine {
    model: Model,
    tokenizer: Arc<Tokenizer>,
    slots: Vec<Slot>,
    parked: Parked,
    pace: Pace,
    speculation: Option<Speculating>,
    /// How often guesses were right, of all answers.
    acceptance: Acceptance,
    waiting: VecDeque<(RequestId, Request)>,
    next_id: u64,
}

impl Engine {
    /// An engine without requests. It runs as many at a time as the model was loaded for.
    pub fn new(mut model: Model, tokenizer: impl Into<Arc<Tokenizer>>) -> Self {
        let n_slots = model.capacity().n_sequences;
        let slot = |_| Slot { cached: Cached::new(&mut model), active: None, last_used: 0, n_guesses: 0 };
        let slots = (0..n_slots).map(slot).collect();
        let (parked, pace) = (Parked::default(), Pace::new(model.n_batch()));
        let (tokenizer, acceptance, waiting) = (tokenizer.into(), Acceptance::default(), VecDeque::new());
        Self { model, tokenizer, slots, parked, pace, speculation: None, acceptance, waiting, next_id: 0 }
    }

    /// Guesses what comes next from now on, so that a pass may give more than a token. Answers stay the same.
    ///
    /// # Errors
    /// [`Error::NoSpeculation`], of a model whose sequences can't be cut back.
    pub fn speculate(&mut self, speculation: Speculation) -> Result<()> {
        if !self.model.can_share() {
            return Err(Error::NoSpeculation);
        }
        (self.speculation, self.acceptance) = (Some(Speculating::new(speculation)), Acceptance::default());
        Ok(())
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The same, for whoever makes prompts elsewhere.
    pub fn shared_tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// Queues a request; [`Engine::step`] runs it.
    ///
    /// # Errors
    /// A prompt that is empty, too long for the context or not of this vocabulary, sampling parameters out of
    /// range, or a full queue.
    pub fn submit(&mut self, request: Request) -> Result<RequestId> {
        self.check_tokens(&request.prompt)?;
        request.sampling.validate()?;
        if self.waiting.len() >= MAX_WAITING {
            return Err(Error::QueueFull { n_waiting: self.waiting.len() });
        }
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back((id, request));
        Ok(id)
    }

    fn check_tokens(&self, prompt: &[u32]) -> Result<()> {
        let (n_prompt, n_ctx) = (prompt.len(), self.model.n_ctx());
        if n_prompt == 0 {
            return Err(Error::EmptyPrompt);
        }
        if n_prompt > n_ctx {
            return Err(Error::PromptTooLong { n_prompt, n_ctx });
        }
        let n_vocab = self.model.config().n_vocab;
        match prompt.iter().find(|&&id| id as usize >= n_vocab) {
            Some(&id) => Err(Error::TokenOutOfRange { id, n_vocab }),
            None => Ok(()),
        }
    }

    /// Ends a request early; it finishes as [`FinishReason::Cancelled`]. Does nothing once it has ended. What ends a pass early
    /// is [`Engine::step_unless`].
    pub fn cancel(&mut self, id: RequestId, on_event: &mut dyn FnMut(Event)) {
        if let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
            self.waiting.remove(place);
            let (reason, stats) = (FinishReason::Cancelled, Stats::default());
            on_event(Event::Finished { request: id, reason, stats });
        }
        if let Some(index) = self.slots.iter().position(|slot| slot.is_of(id)) {
            self.end(index, FinishReason::Cancelled, on_event);
        }
    }

    /// What a request that is being answered has cost so far; `None` while it waits and when it has ended.
    pub fn stats(&self, id: RequestId) -> Option<&Stats> {
        let slot = self.slots.iter().find(|slot| slot.is_of(id))?;
        slot.active.as_ref().map(|active| &active.stats)
    }

    /// Positions that a running request's answer has left; `None` if it waits or has ended.
    pub fn room(&self, id: RequestId) -> Option<usize> {
        let slot = self.slots.iter().find(|slot| slot.is_of(id))?;
        Some(self.model.n_ctx().saturating_sub(slot.cached.tokens.len()))
    }

    /// Lets a running request's answer go on after another prompt, such as one without the oldest turns of a
    /// conversation, to make room. What both prompts begin with stays cached; the rest and the answer so far are
    /// read again, in time that counts as [`Stats::decode`], so that what follows is what follows them. The counts
    /// of [`Stats`] stay those of the first prompt. Does nothing to a request that waits or has ended.
    ///
    /// # Errors
    /// A prompt that is empty, not of this vocabulary, or with the answer so far too long for the context.
    pub fn replace_prompt(&mut self, id: RequestId, mut prompt: Vec<u32>) -> Result<()> {
        self.check_tokens(&prompt)?;
        let n_ctx = self.model.n_ctx();
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.is_of(id)) else { return Ok(()) };
        let Some(active) = &mut slot.active else { return Ok(()) };
        let n_prompt = prompt.len();
        prompt.extend(&slot.cached.tokens[active.n_prompt..]);
        if prompt.len() > n_ctx {
            return Err(Error::PromptTooLong { n_prompt: prompt.len(), n_ctx });
        }
        (active.n_prompt, active.follows) = (n_prompt, None);
        let wanted = Wanted { tokens: &prompt, n_prompt, exact: active.exact, group: slot.cached.group };
        let n_kept = slot.cached.n_kept(&wanted, &self.model);
        slot.cached.cut_back(n_kept, &prompt, &mut self.model);
        Ok(())
    }

    /// Runs one forward pass. True while there is more to do.
    pub fn step(&mut self, on_event: &mut dyn FnMut(Event)) -> bool {
        self.step_unless(&|_| false, on_event)
    }

    /// The same, unless `is_interrupted` says of the requests whose tokens are in the pass that it is to be given up: it is
    /// asked before each of the model's parts, half layers.
    ///
    /// A pass that is given up has never been: nothing is said, nothing counts in [`Stats`], and the requests go on with the
    /// same bits when the next step reads the same tokens again. So interrupt where no answer to any of them is wanted any
    /// more, then [cancel](Engine::cancel) them; one that leaves others in its batch is better cancelled after the pass.
    pub fn step_unless(
        &mut self,
        is_interrupted: &dyn Fn(&[RequestId]) -> bool,
        on_event: &mut dyn FnMut(Event),
    ) -> bool {
        self.admit(on_event);
        self.catch_up();
        let guessing = match self.guess() {
            Ok(time) => time,
            Err(error) => {
                self.fail_all(error, on_event);
                return !self.waiting.is_empty();
            }
        };
        let result = self.pass(is_interrupted, guessing, on_event);
        self.slots.iter_mut().for_each(Slot::drop_guesses);
        match result {
            Ok(()) => {}
            Err(Error::Interrupted) => return true,
            Err(error) => self.fail_all(error, on_event),
        }
        !self.waiting.is_empty() || self.slots.iter().any(|slot| slot.active.is_some())
    }

    /// Adds guesses to the tokens of answers. How long that took.
    fn guess(&mut self) -> Result<Duration> {
        let Self { model, slots, pace, speculation: Some(speculating), .. } = self else {
            return Ok(Duration::ZERO);
        };
        speculating.guess(slots, model, pace)
    }

    /// Runs one forward pass, if there is anything to run.
    fn pass(
        &mut self,
        is_interrupted: &dyn Fn(&[RequestId]) -> bool,
        guessing: Duration,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let pending: PerSlot<_> = self.slots.iter().map(Slot::pending).collect();
        let shares = self.pace.divide_batch(&pending, self.model.n_batch());
        if shares.is_empty() {
            return Ok(());
        }
        let needs = |share: &Share| {
            let Cached { sequence, n_cached, .. } = self.slots[share.slot].cached;
            (sequence, n_cached..n_cached + share.n_tokens)
        };
        while !self.model.has_room(shares.iter().map(needs)) && self.parked.forget_oldest(&mut self.model) {}

        let mut pieces = PerSlot::new();
        let mut ids = PerSlot::new();
        let mut actives = PerSlot::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(share) = shares.iter().find(|share| share.slot == index) else { continue };
            let Slot { cached, active: Some(active), .. } = slot else { continue };
            let end = cached.n_cached + share.n_tokens;
            let n_logits = if end == cached.tokens.len() { 1 + share.n_guesses } else { 0 };
            pieces.push(Piece {
                sequence: cached.sequence,
                start: cached.n_cached,
                tokens: &cached.tokens[cached.n_cached..end],
                role: share.role,
                logits: share.n_tokens - n_logits..share.n_tokens,
            });
            ids.push(active.id);
            actives.push(active);
        }
        let stop_tokens = self.tokenizer.stop_tokens();
        let started = Instant::now();
        let mut choices: PerSlot<Choices> = pieces.iter().map(|_| Choices::default()).collect();
        let n_best = actives.iter().map(|active| active.n_best()).try_fold(0, |most, n| Some(most.max(n?)));
        let mut choose = |of: LogitsOf, logits: &mut [f32]| {
            let (active, piece) = (&mut *actives[of.piece], &pieces[of.piece]);
            choices[of.piece].add(active, piece, of.position, logits, stop_tokens);
        };
        let result = self.model.forward_unless(&|| is_interrupted(&ids), n_best, &pieces, &mut choose);
        let time = started.elapsed();
        drop(pieces);
        if matches!(result, Err(Error::Interrupted)) {
            return result;
        }
        self.pace.passed(&shares, time);
        for (active, share) in actives.into_iter().zip(&shares) {
            active.charge(share.n_tokens, time + guessing);
        }
        result?;

        let limits = Limits { stop_tokens: self.tokenizer.stop_tokens(), n_ctx: self.model.n_ctx() };
        let mut ended = PerSlot::new();
        for (share, choices) in shares.iter().zip(choices) {
            let slot = &mut self.slots[share.slot];
            slot.drop_guesses();
            slot.cached.has_read(share.n_tokens - share.n_guesses, share.role);
            let chosen = match choices.finish() {
                Ok(chosen) => chosen,
                Err(error) => {
                    let error = Arc::new(self.model.explained(error));
                    fail(&mut self.model, slot, error, on_event);
                    continue;
                }
            };
            let Slot { cached, active: Some(active), .. } = slot else { continue };
            active.learn(share.n_guesses, chosen.len().saturating_sub(1), &mut self.acceptance);
            for (i, choice) in chosen.into_iter().enumerate() {
                if i > 0 {
                    cached.has_read(1, share.role);
                    active.stats.n_accepted += 1;
                }
                cached.tokens.push(choice.token);
                let n_tokens = cached.tokens.len();
                if let Some(reason) = active.push(choice, n_tokens, &limits, &self.tokenizer, on_event) {
                    ended.push((share.slot, reason));
                    break;
                }
            }
            if share.n_guesses > 0 {
                self.model.truncate_sequence(cached.sequence, cached.n_cached);
            }
        }
        for (slot, reason) in ended {
            self.end(slot, reason, on_event);
        }
        Ok(())
    }

    /// Runs a request to its end.
    ///
    /// # Errors
    /// As [`Engine::submit`]; a failure on the way is an [`Event::Failed`].
    pub fn generate(&mut self, request: Request, mut on_event: impl FnMut(Event)) -> Result<()> {
        self.submit(request)?;
        while self.step(&mut on_event) {}
        Ok(())
    }

    /// Moves waiting requests to free slots, each with what is cached of its prompt.
    fn admit(&mut self, on_event: &mut dyn FnMut(Event)) {
        while let Some((_, request)) = self.waiting.front() {
            let Request { prompt, exact, group, .. } = request;
            let wanted = Wanted { tokens: prompt, n_prompt: prompt.len(), exact: *exact, group: *group };
            let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.active.is_none());
            let uses = |slot: &Slot| slot.cached.n_kept(&wanted, &self.model);
            let Some(index) =
                free.max_by_key(|(_, slot)| (uses(slot), Reverse(slot.last_used))).map(|(i, _)| i)
            else {
                return;
            };
            let follows = self.leader(&wanted);
            let Some((id, request)) = self.waiting.pop_front() else { return };

            self.prepare(index, &request);
            let slot = &mut self.slots[index];
            slot.last_used = self.next_id;
            let n_cached = slot.cached.n_cached;
            let acceptance = self.acceptance.next();
            let active = self.model.check_files();
            match active.and_then(|()| Active::new(id, request, n_cached, acceptance, &self.tokenizer)) {
                Ok(mut active) => {
                    active.follows = follows.filter(|follows| follows.n_common > n_cached + FEW);
                    slot.active = Some(active);
                }
                Err(error) => {
                    slot.cached.tokens.truncate(n_cached);
                    on_event(Event::Failed { request: id, error: Arc::new(error) });
                }
            }
        }
    }

    /// Lets a free slot begin with what is cached of a request's prompt, here or elsewhere. What it had is kept if it has more
    /// than a few tokens beside.
    fn prepare(&mut self, index: usize, request: &Request) {
        let Request { prompt, exact, group, .. } = request;
        let wanted = Wanted { tokens: prompt, n_prompt: prompt.len(), exact: *exact, group: *group };
        let best = self.best(&wanted);
        let Self { model, slots, parked, .. } = self;
        let cached = &mut slots[index].cached;
        let n_kept = cached.n_kept(&wanted, model);
        let is_better = best.as_ref().is_some_and(|best| best.n_cached > n_kept);
        if model.can_share() && (is_better || cached.n_cached > n_kept + FEW) {
            let mut new = Cached::new(model);
            new.tokens.extend(prompt);
            if let Some(best) = best {
                parked.touch(best.sequence);
                new.share(best, model);
            }
            parked.push(mem::replace(cached, new), model);
        } else {
            cached.cut_back(n_kept, prompt, model);
        }
        cached.group = *group;
    }

    /// What most of a wanted prompt is cached in.
    fn best(&self, wanted: &Wanted<'_>) -> Option<Found> {
        let all = self.slots.iter().map(|slot| &slot.cached).chain(self.parked.iter());
        let n_kept = all.map(|cached| (cached.n_kept(wanted, &self.model), cached));
        let (n_cached, Cached { sequence, read_as, .. }) = n_kept.max_by_key(|(n, _)| *n)?;
        (n_cached > 0).then(|| Found { sequence: *sequence, n_cached, read_as: read_as.clone() })
    }

    /// The request that is just reading most of what a prompt begins with.
    fn leader(&self, wanted: &Wanted<'_>) -> Option<Follows> {
        let own = Role::Prompt { len: wanted.n_prompt };
        let reading =
            self.slots.iter().filter(|slot| self.model.can_share() && slot.cached.group == wanted.group);
        let candidates = reading.filter_map(|slot| {
            let (leader, prompt) = slot.reads()?;
            let sums_alike = self.model.sums_alike(Role::Prompt { len: prompt.len() }, own);
            let n_common = common_prefix(prompt, wanted.tokens).min(wanted.n_prompt - 1);
            (!wanted.exact || sums_alike).then_some(Follows { leader, n_common })
        });
        candidates.max_by_key(|follows| follows.n_common)
    }

    /// Lets requests go on that have waited for another one to read what they begin with.
    fn catch_up(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let Some(Follows { leader, n_common }) = slot.active.as_ref().and_then(|active| active.follows)
            else {
                continue;
            };
            let is_reading = |slot: &Slot| {
                slot.cached.n_cached < n_common && slot.reads().is_some_and(|(id, _)| id == leader)
            };
            if self.slots.iter().any(is_reading) {
                continue;
            }
            let best = slot.wanted().and_then(|wanted| self.best(&wanted));
            let Slot { cached, active: Some(active), .. } = &mut self.slots[index] else { continue };
            if let Some(best) = best.filter(|best| best.n_cached > cached.n_cached) {
                self.parked.touch(best.sequence);
                cached.share(best, &mut self.model);
            }
            active.follows = None;
            active.stats.n_cached = cached.n_cached;
        }
    }

    /// Ends the answer of a slot, which stands only if the weights are still those that were loaded.
    fn end(&mut self, slot: usize, reason: FinishReason, on_event: &mut dyn FnMut(Event)) {
        if let Err(error) = self.model.check_files() {
            self.fail_all(error, on_event);
        } else if let Some(active) = self.slots[slot].active.take() {
            active.finish(reason, on_event);
        }
    }

    /// Ends every request under way with the same error.
    fn fail_all(&mut self, error: Error, on_event: &mut dyn FnMut(Event)) {
        let error = Arc::new(self.model.explained(error));
        for slot in &mut self.slots {
            fail(&mut self.model, slot, Arc::clone(&error), on_event);
        }
    }
}

/// Ends the request of a slot with an error. Its cache is dropped: what it holds is unknown.
fn fail(model: &mut Model, slot: &mut Slot, error: Arc<Error>, on_event: &mut dyn FnMut(Event)) {
    if let Some(active) = slot.active.take() {
        slot.cached.cut_back(0, &[], model);
        on_event(Event::Failed { request: active.id, error });
    }
}
