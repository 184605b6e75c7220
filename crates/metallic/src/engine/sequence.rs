//! One request while it runs: what is still to be computed, and what has been said.

use std::time::Duration;

use smallvec::SmallVec;

use super::cached::{Cached, Wanted};
use super::grammar::Form;
use super::scheduler::Pending;
use super::speculation::Acceptance;
use super::{Event, FinishReason, Request, RequestId, Stats};
use crate::error::{Error, Result};
use crate::model::{Piece, Role, check_logits};
use crate::sampling::{Logprobs, Sampler};
use crate::text::{StopMatcher, StreamDecoder, Tokenizer};

/// Where one request at a time is answered. What was computed of the last one stays until the next comes.
pub(super) struct Slot {
    pub(super) cached: Cached,
    pub(super) active: Option<Active>,
    /// How many requests had come when it was last given one.
    pub(super) last_used: u64,
    /// Tokens at the end of the cached ones that are but guesses: only within a step.
    pub(super) n_guesses: usize,
}

impl Slot {
    /// What is to be computed next, if anything: the rest of the prompt, then what was generated. Nothing where another request is
    /// just reading what this one begins with, too.
    pub(super) fn pending(&self) -> Option<Pending> {
        let Active { n_prompt, follows, .. } = self.active.as_ref()?;
        if follows.is_some() {
            return None;
        }
        let Cached { n_cached, tokens, .. } = &self.cached;
        let (end, role) = if n_cached < n_prompt {
            (*n_prompt, Role::Prompt { len: *n_prompt })
        } else {
            (tokens.len(), Role::Generated)
        };
        Some(Pending { n_tokens: end - n_cached, n_guesses: self.n_guesses, role })
    }

    /// How many guesses there may be of what comes next: 0 unless an answer waits for just that.
    pub(super) fn max_guesses(&self, n_ctx: usize) -> usize {
        let Some(Active { n_prompt, follows: None, stats, max_tokens, .. }) = &self.active else { return 0 };
        let n_tokens = self.cached.tokens.len();
        let waits = self.cached.n_cached >= *n_prompt && n_tokens == self.cached.n_cached + 1;
        let to_come = max_tokens.saturating_sub(stats.n_generated + 1);
        // Before the context is full, whoever asked may make room: no pass goes past that moment.
        if waits { to_come.min(n_ctx.saturating_sub(n_tokens + 1)) } else { 0 }
    }

    /// Forgets what was guessed.
    pub(super) fn drop_guesses(&mut self) {
        let n_tokens = self.cached.tokens.len() - std::mem::take(&mut self.n_guesses);
        self.cached.tokens.truncate(n_tokens);
    }

    /// Whether it runs this request.
    pub(super) fn is_of(&self, id: RequestId) -> bool {
        self.active.as_ref().is_some_and(|active| active.id == id)
    }

    /// What it would make use of, were it cached.
    pub(super) fn wanted(&self) -> Option<Wanted<'_>> {
        let Active { n_prompt, exact, .. } = *self.active.as_ref()?;
        let Cached { tokens, group, .. } = &self.cached;
        Some(Wanted { tokens, n_prompt, exact, group: *group })
    }

    /// Its request and its prompt, while it has not read that.
    pub(super) fn reads(&self) -> Option<(RequestId, &[u32])> {
        let Active { id, n_prompt, .. } = *self.active.as_ref()?;
        (self.cached.n_cached < n_prompt).then(|| (id, &self.cached.tokens[..n_prompt]))
    }
}

/// Another request that is reading what this one begins with.
#[derive(Clone, Copy)]
pub(super) struct Follows {
    pub(super) leader: RequestId,
    /// Tokens that they have in common.
    pub(super) n_common: usize,
}

/// A request that is being answered.
pub(super) struct Active {
    pub(super) id: RequestId,
    pub(super) stats: Stats,
    /// Tokens of the slot that the answer comes after.
    pub(super) n_prompt: usize,
    sampler: Sampler,
    decoder: StreamDecoder,
    stop: StopMatcher,
    /// What the stop strings name.
    named_stops: Vec<u32>,
    max_tokens: usize,
    form: Option<Form>,
    logprobs: Option<usize>,
    pub(super) exact: bool,
    pub(super) follows: Option<Follows>,
    pub(super) acceptance: Acceptance,
    pub(super) kind_of_guesses: usize,
}

/// A token that was chosen.
pub(super) struct Choice {
    pub(super) token: u32,
    logprobs: Option<Logprobs>,
}

/// The tokens that were chosen by the logits of a pass, one after another.
#[derive(Default)]
pub(super) struct Choices {
    /// One, and one more for each guess that was right.
    pub(super) chosen: SmallVec<[Choice; 2]>,
    error: Option<Error>,
}

impl Choices {
    /// Chooses the token that follows one of a piece, by its logits, if that is the one that was chosen after those before.
    pub(super) fn add(
        &mut self,
        active: &mut Active,
        piece: &Piece<'_>,
        position: usize,
        logits: &mut [f32],
        stop_tokens: &[u32],
    ) {
        let row = position - piece.start;
        let is_next = row == piece.logits.start + self.chosen.len();
        let is_right = self.chosen.last().is_none_or(|choice| choice.token == piece.tokens[row]);
        if self.error.is_some() || !is_next || !is_right {
            return;
        }
        match check_logits(position, logits).and_then(|()| active.choose(logits, stop_tokens)) {
            Ok(choice) => self.chosen.push(choice),
            Err(error) => self.error = Some(error),
        }
    }

    /// Them, or what went wrong with one.
    pub(super) fn finish(self) -> Result<SmallVec<[Choice; 2]>> {
        self.error.map_or(Ok(self.chosen), Err)
    }
}

/// The limits that end an answer.
pub(super) struct Limits<'a> {
    pub(super) stop_tokens: &'a [u32],
    pub(super) n_ctx: usize,
}

impl Active {
    pub(super) fn new(
        id: RequestId,
        request: Request,
        n_cached: usize,
        acceptance: Acceptance,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let mut sampling = request.sampling;
        if request.ignore_eos {
            sampling.logit_bias.extend(tokenizer.stop_tokens().iter().map(|&id| (id, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(sampling)?;
        for &token in &request.prompt {
            sampler.accept(token);
        }
        // After a control token, such as one that begins a turn, a text begins; otherwise one goes on.
        let begins = request.prompt.last().is_some_and(|&token| tokenizer.is_control(token));
        let decoder = if begins { StreamDecoder::new(tokenizer) } else { StreamDecoder::continuing() };
        Ok(Self {
            id,
            stats: Stats { n_prompt: request.prompt.len(), n_cached, ..Stats::default() },
            n_prompt: request.prompt.len(),
            sampler,
            decoder: decoder.showing(request.control_tokens),
            named_stops: request.stop.iter().filter_map(|text| tokenizer.special_token(text)).collect(),
            stop: StopMatcher::new(request.stop),
            max_tokens: request.max_tokens.unwrap_or(usize::MAX),
            form: request.form,
            logprobs: request.logprobs,
            exact: request.exact,
            follows: None,
            acceptance,
            kind_of_guesses: 0,
        })
    }

    /// What chooses its tokens.
    pub(super) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// How many of the largest logits the choice depends on; `None` if on all.
    pub(super) fn n_best(&self) -> Option<usize> {
        self.sampler.n_best().filter(|_| self.logprobs.is_none() && self.form.is_none())
    }

    /// Chooses the next token.
    fn choose(&mut self, logits: &mut [f32], stop_tokens: &[u32]) -> Result<Choice> {
        // Sampling changes the logits, and so does what the form rules out.
        let asked = self.logprobs.map(|n_top| (n_top, logits.to_vec()));
        self.sampler.adjust(logits);
        if let Some(form) = &mut self.form {
            form.mask(logits, self.sampler.n_drawn_from(), stop_tokens)?;
        }
        let token = self.sampler.draw_from(logits);
        self.sampler.accept(token);
        if let Some(form) = &mut self.form {
            form.accept(token, stop_tokens)?;
        }
        Ok(Choice { token, logprobs: asked.map(|(n_top, logits)| Logprobs::new(&logits, token, n_top)) })
    }

    /// Learns how many of its guesses were right, before the first that was not; so do all answers together.
    pub(super) fn learn(&mut self, n_guesses: usize, n_right: usize, of_all: &mut Acceptance) {
        if n_guesses > 0 {
            self.stats.n_guessed += n_guesses;
            for acceptance in [&mut self.acceptance, of_all] {
                acceptance.learn(self.kind_of_guesses, n_guesses, n_right);
            }
        }
    }

    /// Adds the time of a forward pass over some tokens to what it was for.
    pub(super) fn charge(&mut self, n_tokens: usize, time: Duration) {
        if self.stats.n_generated == 0 {
            self.stats.n_read += n_tokens;
            self.stats.prefill += time;
        } else {
            self.stats.n_rows += n_tokens;
            self.stats.n_passes += 1;
            self.stats.decode += time;
        }
    }

    /// Says what a new token says, and whether the answer ends with it; `n_tokens` counts the sequence with it.
    pub(super) fn push(
        &mut self,
        Choice { token, logprobs }: Choice,
        n_tokens: usize,
        limits: &Limits<'_>,
        tokenizer: &Tokenizer,
        on_event: &mut dyn FnMut(Event),
    ) -> Option<FinishReason> {
        self.stats.n_generated += 1;
        on_event(Event::Token { request: self.id, token, logprobs });
        if limits.stop_tokens.contains(&token) {
            return Some(FinishReason::StopToken);
        }
        if self.named_stops.contains(&token) {
            return Some(FinishReason::StopString);
        }
        let text = self.decoder.push(tokenizer, token);
        let stopped = self.say(&text, on_event);
        if stopped {
            Some(FinishReason::StopString)
        } else if self.stats.n_generated >= self.max_tokens {
            Some(FinishReason::MaxTokens)
        } else if n_tokens > limits.n_ctx {
            Some(FinishReason::ContextFull)
        } else {
            None
        }
    }

    /// Says what was held back, then that the answer has ended.
    pub(super) fn finish(mut self, reason: FinishReason, on_event: &mut dyn FnMut(Event)) {
        // After a stop string nothing is held back and nothing follows.
        let rest = self.decoder.finish();
        if !self.say(&rest, on_event) {
            let held_back = self.stop.finish();
            self.emit(held_back, on_event);
        }
        on_event(Event::Finished { request: self.id, reason, stats: self.stats });
    }

    /// Emits what of `text` can't be the start of a stop string; true when one is complete.
    fn say(&mut self, text: &str, on_event: &mut dyn FnMut(Event)) -> bool {
        let (text, stopped) = self.stop.push(text);
        self.emit(text, on_event);
        stopped
    }

    fn emit(&self, text: String, on_event: &mut dyn FnMut(Event)) {
        if !text.is_empty() {
            on_event(Event::Text { request: self.id, text });
        }
    }
}
