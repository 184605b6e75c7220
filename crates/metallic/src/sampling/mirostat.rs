//! Mirostat 2 (Basu et al. 2021, "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity",
//! algorithm 2): it keeps the surprise of the tokens, `−log2 p`, near a target.

use super::{Candidate, MirostatParams};

/// What Mirostat knows of the tokens so far.
#[derive(Clone, Debug)]
pub(super) struct Mirostat {
    params: MirostatParams,
    /// The surprise that a token may have, in bits; twice the target at first.
    limit: f32,
}

impl Mirostat {
    pub(super) fn new(params: MirostatParams) -> Self {
        Self { limit: 2.0 * params.tau, params }
    }

    /// Drops the tokens that are too surprising, but never the likeliest. `probabilities` are those of `candidates`,
    /// which come likeliest first.
    pub(super) fn truncate(&self, candidates: &mut Vec<Candidate>, probabilities: &[f32]) {
        let kept = probabilities.iter().take_while(|p| surprise(**p) <= self.limit).count();
        candidates.truncate(kept.max(1));
    }

    /// Learns from a token that was drawn with this probability, of those that were left.
    pub(super) fn learn(&mut self, probability: f32) {
        self.limit -= self.params.eta * (surprise(probability) - self.params.tau);
    }
}

fn surprise(probability: f32) -> f32 {
    -probability.log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_surprise() {
        let mut mirostat = Mirostat::new(MirostatParams { tau: 1.0, eta: 0.5 });
        let kept = |mirostat: &Mirostat, probabilities: &[f32]| {
            let mut candidates = vec![Candidate { id: 0, logit: 0.0 }; probabilities.len()];
            mirostat.truncate(&mut candidates, probabilities);
            candidates.len()
        };
        // Surprises 1, 2, 3 and 3 bits; at first the limit is 2.
        let probabilities = [0.5, 0.25, 0.125, 0.125];
        assert_eq!(kept(&mirostat, &probabilities), 2);
        // A token without surprise raises the limit by half a bit: 2.5, then 3.
        mirostat.learn(1.0);
        assert_eq!(kept(&mirostat, &probabilities), 2);
        mirostat.learn(1.0);
        assert_eq!(kept(&mirostat, &probabilities), 4);
        // One of 6 bits lowers it by 2.5; the likeliest stays whatever the limit is.
        mirostat.learn(1.0 / 64.0);
        assert_eq!(kept(&mirostat, &probabilities), 1);
        mirostat.learn(0.0);
        assert_eq!(kept(&mirostat, &probabilities), 1);
    }
}
