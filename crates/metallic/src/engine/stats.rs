//! What a request cost.

use std::time::Duration;

/// Counts and times of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Of those, tokens whose keys and values were already cached.
    pub n_cached: usize,
    /// Of the others, those that have been read: all, but in a request that was cancelled or failed before.
    pub n_read: usize,
    /// Tokens generated.
    pub n_generated: usize,
    /// Forward passes that generated the tokens after the first.
    pub n_passes: usize,
    /// Tokens that those were over, guesses included.
    pub n_rows: usize,
    /// Guesses of what comes next.
    pub n_guessed: usize,
    /// Of those, the ones that were right and became part of the answer.
    pub n_accepted: usize,
    /// Time in forward passes that read the prompt, the first token's sampling included; not in those that were given up.
    pub prefill: Duration,
    /// Time in forward passes that generated the other tokens, and of guessing them.
    pub decode: Duration,
}

impl Stats {
    /// Prompt tokens read per second; `None` before there is a time.
    pub fn prefill_rate(&self) -> Option<f64> {
        rate(self.n_read, self.prefill)
    }

    /// Tokens generated per second after the first; `None` before there is a second.
    pub fn decode_rate(&self) -> Option<f64> {
        rate(self.n_generated.saturating_sub(1), self.decode)
    }

    /// Tokens that a pass gave, of those after the first; `None` before there is a second.
    pub fn tokens_per_pass(&self) -> Option<f64> {
        (self.n_passes > 0).then(|| self.n_generated.saturating_sub(1) as f64 / self.n_passes as f64)
    }

    /// Tokens that those passes were over, guesses included.
    pub fn rows_per_pass(&self) -> Option<f64> {
        (self.n_passes > 0).then(|| self.n_rows as f64 / self.n_passes as f64)
    }
}

fn rate(n: usize, time: Duration) -> Option<f64> {
    (n > 0 && !time.is_zero()).then(|| n as f64 / time.as_secs_f64())
}
