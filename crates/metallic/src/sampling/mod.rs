//! Choosing the next token from logits.
//!
//! The chain is llama.cpp's default order: logit bias, penalties, DRY, then greedy choice if the temperature is
//! zero; otherwise top-k, typical, top-p, min-p, temperature, and one draw. The draw uses PCG64, whose output
//! is fixed by its definition: the same seed and the same logits give the same tokens everywhere.

mod dry;
mod filters;
mod logprobs;
mod params;
mod penalties;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

pub use logprobs::{Logprobs, Softmax, TokenLogprob};
pub use params::{DryParams, Error, SamplingParams};

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// Chooses tokens for one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplingParams,
    seed: u64,
    rng: Pcg64,
    /// The last tokens of the sequence, as many as any penalty looks back.
    recent: VecDeque<u32>,
    n_recent: usize,
    candidates: Vec<Candidate>,
    probabilities: Vec<f32>,
}

impl Sampler {
    /// A sampler that has seen no tokens.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn new(params: SamplingParams) -> Result<Self, Error> {
        params.validate()?;
        let seed = params.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let dry_reach = params.dry.as_ref().map_or(0, |dry| dry.last_n);
        Ok(Self {
            seed,
            rng: Pcg64::seed_from_u64(seed),
            recent: VecDeque::new(),
            n_recent: dry_reach.max(params.penalty_last_n),
            candidates: Vec::new(),
            probabilities: Vec::new(),
            params,
        })
    }

    /// The seed in use: the one asked for, or the one drawn.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Takes note of a token of the sequence, of the prompt or chosen.
    pub fn accept(&mut self, token: u32) {
        if self.n_recent > 0 {
            if self.recent.len() == self.n_recent {
                self.recent.pop_front();
            }
            self.recent.push_back(token);
        }
    }

    /// Chooses a token; `logits` has one value for each token of the vocabulary and is changed. Values that
    /// are not numbers are never chosen over any that is.
    ///
    /// # Panics
    /// If `logits` is empty.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        assert!(!logits.is_empty(), "a vocabulary has at least one token");
        for (id, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        let recent = self.recent.make_contiguous();
        penalties::apply(&self.params, recent, logits);
        if let Some(dry) = &self.params.dry {
            dry::apply(dry, recent, logits);
        }
        if self.params.temperature <= 0.0 {
            return greedy(logits);
        }
        filters::top_k(logits, self.params.top_k, &mut self.candidates);
        if self.params.typical_p < 1.0 {
            filters::typical(self.params.typical_p, &mut self.candidates, &mut self.probabilities);
        }
        filters::top_p(self.params.top_p, &mut self.candidates, &mut self.probabilities);
        filters::min_p(self.params.min_p, &mut self.candidates);
        self.draw()
    }

    /// One draw from the softmax of the candidates' logits over the temperature.
    fn draw(&mut self) -> u32 {
        filters::softmax(&self.candidates, self.params.temperature, &mut self.probabilities);
        // 53 random bits, as many as a double has.
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        for (candidate, p) in self.candidates.iter().zip(&self.probabilities) {
            left -= f64::from(*p);
            if left < 0.0 {
                return candidate.id;
            }
        }
        self.candidates[0].id // what rounding has left over goes to the likeliest
    }
}

/// The largest logit's token, the first of several.
fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> SamplingParams {
        SamplingParams { seed: Some(7), ..SamplingParams::default() }
    }

    #[test]
    fn temperature_zero_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, ..params() }).unwrap();
        assert_eq!(sampler.sample(&mut [0.0, 3.0, f32::NAN, 3.0, 1.0]), 1);
        assert_eq!(sampler.sample(&mut [f32::NAN; 3]), 0);
    }

    #[test]
    fn draws_follow_the_softmax_of_logits_over_temperature() {
        // At temperature 2 the logits 2·ln(1), 2·ln(2), 2·ln(5) have odds 1 : 2 : 5.
        let logits = [1.0f32, 2.0, 5.0].map(|odds| 2.0 * odds.ln());
        let params = SamplingParams { temperature: 2.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..params() };
        let mut sampler = Sampler::new(params).unwrap();
        let mut counts = [0f64; 3];
        for _ in 0..80_000 {
            counts[sampler.sample(&mut logits.clone()) as usize] += 1.0;
        }
        for (count, expected) in counts.iter().zip([10_000.0, 20_000.0, 50_000.0]) {
            assert!((count - expected).abs() < 600.0, "{counts:?}"); // over four standard deviations
        }
    }

    #[test]
    fn a_seed_fixes_the_tokens_on_every_platform() {
        let draw = |seed| {
            let mut sampler = Sampler::new(SamplingParams { seed: Some(seed), ..params() }).unwrap();
            let tokens = (0..12).map(|i| {
                let mut logits: Vec<f32> = (0..50).map(|id| ((id * 7 + i) % 11) as f32 * 0.1).collect();
                sampler.sample(&mut logits)
            });
            tokens.collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_seed_is_drawn_where_none_is_given_and_can_be_used_again() {
        let random = SamplingParams { seed: None, ..params() };
        let (a, b) = (Sampler::new(random.clone()).unwrap(), Sampler::new(random).unwrap());
        assert_ne!(a.seed(), b.seed());
    }

    #[test]
    fn bias_forbids_and_forces() {
        let params = SamplingParams { logit_bias: vec![(1, f32::NEG_INFINITY), (99, 5.0)], ..params() };
        let mut sampler = Sampler::new(SamplingParams { temperature: 0.0, ..params }).unwrap();
        assert_eq!(sampler.sample(&mut [0.0, 9.0, 1.0]), 2);
    }

    #[test]
    fn logits_that_are_not_numbers_are_never_drawn() {
        let mut sampler = Sampler::new(params()).unwrap();
        for _ in 0..50 {
            assert_eq!(sampler.sample(&mut [f32::NAN, f32::NEG_INFINITY, 0.5, f32::NAN]), 2);
        }
        assert!(sampler.sample(&mut [f32::NAN; 4]) < 4);
        let infinite = sampler.sample(&mut [0.0, f32::INFINITY, f32::INFINITY]);
        assert!(infinite >= 1);
    }
}
