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
    /// Time in forward passes that read the prompt, the first token's sampling included; not in those that were given up.
    pub prefill: Duration,
    /// Time in forward passes that generated the other tokens.
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
}

fn rate(n: usize, time: Duration) -> Option<f64> {
    (n > 0 && !time.is_zero()).then(|| n as f64 / time.as_secs_f64())
}
