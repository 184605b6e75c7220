//! What was computed of sequences and can be used again: by the next turn of a conversation, or by whoever asks something that
//! begins alike.

use std::collections::VecDeque;

use crate::model::{Model, ReadAs, Role, SequenceId};

/// Tokens whose keys and values are in the KV cache, and those that are to follow.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) sequence: SequenceId,
    /// Prompt and answer; the first `n_cached` have keys and values.
    pub(super) tokens: Vec<u32>,
    pub(super) n_cached: usize,
    /// As what those were read.
    pub(super) read_as: ReadAs,
    /// Who may use them.
    pub(super) group: u64,
}

/// A prompt that is to be answered, by those that look for what is cached of it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The prompt, perhaps with the answer so far.
    pub(super) tokens: &'a [u32],
    pub(super) n_prompt: usize,
    /// Whether only what was summed as it would be now will do.
    pub(super) exact: bool,
    pub(super) group: u64,
}

/// A sequence of which the first `n_cached` tokens can be used.
pub(super) struct Found {
    pub(super) sequence: SequenceId,
    pub(super) n_cached: usize,
    pub(super) read_as: ReadAs,
}

impl Cached {
    pub(super) fn new(model: &mut Model) -> Self {
        Self {
            sequence: model.create_sequence(),
            // One more than the context: the last token that is chosen need not fit.
            tokens: Vec::with_capacity(model.n_ctx() + 1),
            n_cached: 0,
            read_as: ReadAs::default(),
            group: 0,
        }
    }

    /// How many of its tokens can be kept for what is wanted: never the last of that, whose logits are what goes on.
    pub(super) fn n_kept(&self, wanted: &Wanted<'_>, model: &Model) -> usize {
        if self.group != wanted.group {
            return 0;
        }
        let Wanted { tokens, n_prompt, exact, .. } = *wanted;
        let n_shared = common_prefix(&self.tokens[..self.n_cached], tokens).min(tokens.len() - 1);
        if !exact {
            return n_shared;
        }
        let (prompt, mut n_same) = (Role::Prompt { len: n_prompt }, 0);
        for (end, role) in self.read_as.runs() {
            // Of a run that reaches into the answer, what is part of the prompt is looked at alone.
            for (end, wanted) in [(end.min(n_prompt), prompt), (end, Role::Generated)] {
                if end > n_same && !model.sums_alike(role, wanted) {
                    return n_shared.min(n_same);
                }
                n_same = n_same.max(end);
            }
        }
        n_shared
    }

    /// Lets it go on with other tokens, of which it keeps what was computed of the first `n_cached`.
    pub(super) fn cut_back(&mut self, n_cached: usize, tokens: &[u32], model: &mut Model) {
        model.truncate_sequence(self.sequence, n_cached);
        self.n_cached = n_cached;
        self.tokens.clear();
        self.tokens.extend(tokens);
        self.read_as.truncate(n_cached);
    }

    /// Has it begin with what was found, which are its own first tokens, too.
    pub(super) fn share(&mut self, found: Found, model: &mut Model) {
        let Found { sequence, n_cached, read_as } = found;
        model.share_sequence(sequence, self.sequence, n_cached);
        (self.n_cached, self.read_as) = (n_cached, read_as);
        self.read_as.truncate(n_cached);
    }

    /// Notes that the next tokens have been read.
    pub(super) fn has_read(&mut self, n_tokens: usize, role: Role) {
        self.n_cached += n_tokens;
        self.read_as.push(self.n_cached, role);
    }
}

/// What has ended and stays until its pages are needed, what was used longest ago first.
#[derive(Default)]
pub(super) struct Parked {
    sequences: VecDeque<Cached>,
    n_tokens: usize,
}

impl Parked {
    /// Keeps a sequence. What is then too much is forgotten.
    pub(super) fn push(&mut self, mut cached: Cached, model: &mut Model) {
        if cached.n_cached == 0 {
            model.release_sequence(cached.sequence);
            return;
        }
        cached.tokens.truncate(cached.n_cached);
        cached.tokens.shrink_to_fit();
        self.n_tokens += cached.n_cached;
        self.sequences.push_back(cached);
        while self.n_tokens > max_parked_tokens(model) {
            self.forget_oldest(model);
        }
    }

    /// Gives back what was used longest ago, if there is anything.
    pub(super) fn forget_oldest(&mut self, model: &mut Model) -> bool {
        let Some(oldest) = self.sequences.pop_front() else { return false };
        self.n_tokens -= oldest.n_cached;
        model.release_sequence(oldest.sequence);
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Cached> {
        self.sequences.iter()
    }

    /// Notes that one is used.
    pub(super) fn touch(&mut self, sequence: SequenceId) {
        if let Some(place) = self.sequences.iter().position(|cached| cached.sequence == sequence)
            && let Some(cached) = self.sequences.remove(place)
        {
            self.sequences.push_back(cached);
        }
    }
}

/// Tokens of all that is parked: with shared pages there may be more than the pages have room for.
fn max_parked_tokens(model: &Model) -> usize {
    model.n_ctx().saturating_mul(model.capacity().n_sequences)
}

/// Tokens that two sequences begin with.
pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
