//! How likely a model finds tokens: logarithms of the probabilities that its logits stand for.

use super::Candidate;
use super::filters::top_k;

/// The softmax of one row of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softmax {
    /// The logarithm of the sum of the logits' exponentials.
    log_sum: f64,
}

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Negative infinity where the model rules the token out.
    pub logprob: f32,
}

/// How likely the model found the token that was chosen, and those it found likeliest.
///
/// Of the model's own distribution: at temperature 1, before biases, penalties and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// Of the token that was chosen.
    pub chosen: f32,
    /// The likeliest tokens, as many as were asked for; the likeliest first, of equals the lowest id.
    pub top: Vec<TokenLogprob>,
}

impl Softmax {
    /// Of a row of logits. What is not a number counts as ruled out.
    pub fn new(logits: &[f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let terms = logits.iter().filter(|logit| !logit.is_nan()).map(|logit| f64::from(logit - max).exp());
        Softmax { log_sum: f64::from(max) + terms.sum::<f64>().ln() }
    }

    /// The natural logarithm of the probability of a token with this logit.
    pub fn logprob(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

impl Logprobs {
    /// Of `chosen` and the `n_top` likeliest tokens of a row.
    pub(crate) fn new(logits: &[f32], chosen: u32, n_top: usize) -> Self {
        let softmax = Softmax::new(logits);
        let mut likeliest = Vec::new();
        if n_top > 0 {
            top_k(logits, n_top, &mut likeliest);
        }
        let of = |candidate: Candidate| TokenLogprob {
            token: candidate.id,
            logprob: softmax.logprob(candidate.logit) as f32,
        };
        Self {
            chosen: softmax.logprob(logits[chosen as usize]) as f32,
            top: likeliest.into_iter().map(of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_relative() {
        // Odds 1 : 3, far from 1 to show that large logits do no harm.
        let logits = [500.0, 500.0 + 3_f32.ln(), f32::NAN, f32::NEG_INFINITY];
        let softmax = Softmax::new(&logits);
        assert!((softmax.logprob(logits[0]) + 4_f64.ln()).abs() < 1e-4);
        assert!((softmax.logprob(logits[1]) + (4_f64 / 3.0).ln()).abs() < 1e-4);
        assert_eq!(softmax.logprob(logits[3]), f64::NEG_INFINITY);
    }

    #[test]
    fn the_likeliest_come_first_whatever_was_chosen() {
        let logits = [0.25f32, 0.5, 0.125, 0.125].map(f32::ln);
        let Logprobs { chosen, top } = Logprobs::new(&logits, 3, 3);
        assert!((chosen - 0.125f32.ln()).abs() < 1e-6);
        assert_eq!(top.iter().map(|one| one.token).collect::<Vec<_>>(), [1, 0, 2]);
        assert!((top[1].logprob - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(Logprobs::new(&logits, 1, 0).top, []);
        assert_eq!(Logprobs::new(&logits, 1, 99).top.len(), 4);
    }
}
