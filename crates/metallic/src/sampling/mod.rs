//! Choosing the next token from logits.
//!
//! The chain is llama.cpp's default order: logit bias, penalties, DRY, then greedy choice if the temperature is
//! zero; otherwise top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature, and one draw. Mirostat, as there,
//! leaves only the logit bias and the temperature before it. The draw uses PCG64, whose output is fixed by its
//! definition: the same seed and the same logits give the same tokens everywhere.

mod dry;
mod filters;
mod logprobs;
mod mirostat;
mod params;
mod penalties;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use mirostat::Mirostat;
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

pub use logprobs::{Logprobs, Softmax, TokenLogprob};
pub use params::{DryParams, Error, MirostatParams, SamplingParams};

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
    mirostat: Option<Mirostat>,
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
            mirostat: params.mirostat.clone().map(Mirostat::new),
            recent: VecDeque::new(),
            n_recent: dry_reach.max(params.penalty_last_n),
            candidates: Vec::new(),
            probabilities: Vec::new(),
            params,
        })
    }

    /// One that goes on as this would.
    pub(crate) fn fork(&self) -> Self {
        let Self { params, seed, rng, mirostat, recent, n_recent, .. } = self;
        Self {
            params: params.clone(),
            seed: *seed,
            rng: rng.clone(),
            mirostat: mirostat.clone(),
            recent: recent.clone(),
            n_recent: *n_recent,
            candidates: Vec::new(),
            probabilities: Vec::new(),
        }
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

    /// How many of the largest logits a choice depends on, and of equals on those before; `None` if on all.
    pub fn n_best(&self) -> Option<usize> {
        let SamplingParams { mirostat, dry, logit_bias, .. } = &self.params;
        let changes_some = !logit_bias.is_empty() || dry.is_some() || penalties::apply_to_some(&self.params);
        if changes_some || mirostat.is_some() { None } else { self.n_drawn_from() }
    }

    /// The same of logits that [`Sampler::adjust`] has changed.
    pub fn n_drawn_from(&self) -> Option<usize> {
        let SamplingParams { temperature, top_n_sigma, top_k, mirostat, .. } = &self.params;
        if *temperature <= 0.0 {
            Some(1)
        } else {
            Some(*top_k).filter(|k| *k > 0 && *top_n_sigma <= 0.0 && mirostat.is_none())
        }
    }

    /// Chooses a token; `logits` has one value for each token of the vocabulary and is changed. Values that
    /// are not numbers are never chosen over any that is.
    ///
    /// # Panics
    /// If `logits` is empty.
    pub fn sample(&mut self, logits: &mut [f32]) -> u32 {
        self.adjust(logits);
        self.draw_from(logits)
    }

    /// The first half of [`Sampler::sample`]: adds what is asked for to single tokens' logits, and takes penalties off.
    pub fn adjust(&mut self, logits: &mut [f32]) {
        for (id, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if self.mirostat.is_none() {
            let recent = self.recent.make_contiguous();
            penalties::apply(&self.params, recent, logits);
            if let Some(dry) = &self.params.dry {
                dry::apply(dry, recent, logits);
            }
        }
    }

    /// The second half: chooses a token by logits that have been adjusted. Between the two others may be ruled out, as negative
    /// infinity.
    ///
    /// # Panics
    /// If `logits` is empty.
    pub fn draw_from(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty(), "a vocabulary has at least one token");
        if let Some(mirostat) = self.mirostat.take() {
            return self.draw_with(mirostat, logits);
        }
        if self.params.temperature <= 0.0 {
            return greedy(logits);
        }
        let SamplingParams { top_n_sigma, top_k, typical_p, top_p, min_p, .. } = self.params;
        filters::top_k(logits, top_k, &mut self.candidates);
        if top_n_sigma > 0.0 {
            filters::top_n_sigma(top_n_sigma, logits, &mut self.candidates);
        }
        if typical_p < 1.0 {
            filters::typical(typical_p, &mut self.candidates, &mut self.probabilities);
        }
        filters::top_p(top_p, &mut self.candidates, &mut self.probabilities);
        filters::min_p(min_p, &mut self.candidates);
        let SamplingParams { xtc_probability, xtc_threshold, .. } = self.params;
        if xtc_probability > 0.0 && self.uniform() < f64::from(xtc_probability) {
            filters::xtc(xtc_threshold, &mut self.candidates, &mut self.probabilities);
        }
        let drawn = self.draw();
        self.candidates[drawn].id
    }

    /// A draw with the surprise under control. Mirostat is put back, with what it has learnt.
    fn draw_with(&mut self, mut mirostat: Mirostat, logits: &[f32]) -> u32 {
        let token = if self.params.temperature <= 0.0 {
            mirostat.learn(1.0); // there is no other
            greedy(logits)
        } else {
            filters::top_k(logits, 0, &mut self.candidates);
            filters::softmax(&self.candidates, self.params.temperature, &mut self.probabilities);
            mirostat.truncate(&mut self.candidates, &self.probabilities);
            let drawn = self.draw();
            mirostat.learn(self.probabilities[drawn]);
            self.candidates[drawn].id
        };
        self.mirostat = Some(mirostat);
        token
    }

    /// One draw from the softmax of the candidates' logits over the temperature: which candidate.
    fn draw(&mut self) -> usize {
        filters::softmax(&self.candidates, self.params.temperature, &mut self.probabilities);
        let mut left = self.uniform();
        for (i, p) in self.probabilities.iter().enumerate() {
            left -= f64::from(*p);
            if left < 0.0 {
                return i;
            }
        }
        0 // what rounding has left over goes to the likeliest
    }

    /// A random number from 0 on and below 1.
    fn uniform(&mut self) -> f64 {
        // 53 random bits, as many as a double has.
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The largest logit's token, the first of several. What is not a number is none.
fn greedy(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (first, part) in (0..).step_by(GREEDY_PART).zip(logits.chunks(GREEDY_PART)) {
        let largest = largest(part);
        if largest > best.1 {
            best = (first, largest);
        }
    }
    let (first, largest) = best;
    let within = logits[first..].iter().position(|logit| *logit == largest).unwrap_or(0);
    (first + within) as u32
}

/// The `n` largest logits with their tokens, the largest first, of equals the lowest token.
pub(crate) fn likeliest(logits: &[f32], n: usize) -> impl Iterator<Item = (u32, f32)> + use<> {
    let mut candidates = Vec::new();
    filters::top_k(logits, n, &mut candidates);
    candidates.into_iter().map(|Candidate { id, logit }| (id, logit))
}

/// Logits whose largest is found before its place is looked for: a comparison that also keeps the place can't be made of
/// whole registers, and takes fifteen times as long.
const GREEDY_PART: usize = 4096;

/// The largest of some logits.
fn largest(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (sixteens, rest) = logits.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for sixteen in sixteens {
        lanes.iter_mut().zip(sixteen).for_each(|(lane, logit)| *lane = larger(*lane, *logit));
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
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
        // Wherever it is in a vocabulary of some parts.
        for at in [0, 15, 16, GREEDY_PART - 1, GREEDY_PART, 9_000, 9_999] {
            let mut logits: Vec<f32> = (0..10_000).map(|id| -((id % 97) as f32)).collect();
            for id in [at, 9_999] {
                logits[id] = 1.0;
            }
            assert_eq!(sampler.sample(&mut logits), at as u32);
        }
    }

    #[test]
    fn what_is_not_among_the_best_does_not_count() {
        let with = |change: fn(&mut SamplingParams)| {
            let mut params = params();
            change(&mut params);
            Sampler::new(params).unwrap()
        };
        let of_all: [fn(&mut SamplingParams); 6] = [
            |params| params.top_k = 0,
            |params| params.top_n_sigma = 1.0,
            |params| params.repeat_penalty = 1.1,
            |params| params.dry = Some(DryParams::default()),
            |params| params.logit_bias = vec![(3, 1.0)],
            |params| params.mirostat = Some(MirostatParams { tau: 5.0, eta: 0.1 }),
        ];
        assert!(of_all.iter().all(|change| with(*change).n_best().is_none()));
        assert_eq!(with(|params| params.temperature = 0.0).n_best(), Some(1));
        let of_some: [fn(&mut SamplingParams); 3] = [
            |params| params.temperature = 0.0,
            |params| params.top_k = 5,
            |params| (params.top_k, params.typical_p, params.xtc_probability) = (9, 0.9, 0.5),
        ];
        for change in of_some {
            let (mut of_all, mut of_best) = (with(change), with(change));
            let n_best = of_all.n_best().unwrap();
            for round in 0..200_u32 {
                // Many equals.
                let mut logits: Vec<f32> = (0..97).map(|id| ((id * id + round) % 13) as f32).collect();
                let mut order: Vec<usize> = (0..logits.len()).collect();
                order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
                let mut best = vec![f32::NEG_INFINITY; logits.len()];
                order[..n_best].iter().for_each(|id| best[*id] = logits[*id]);
                assert_eq!(of_best.sample(&mut best), of_all.sample(&mut logits));
            }
        }
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
    fn xtc_strikes_as_often_as_it_is_told_to() {
        // Of two likely tokens XTC drops the likelier; top-k leaves no other.
        let xtc = SamplingParams { top_k: 2, xtc_probability: 0.25, xtc_threshold: 0.2, ..params() };
        let mut sampler = Sampler::new(SamplingParams { temperature: 0.01, ..xtc }).unwrap();
        let n = (0..40_000).filter(|_| sampler.sample(&mut [1.0, 1.5, 0.0]) == 0).count();
        assert!((9_600..10_400).contains(&n), "{n}"); // over four standard deviations
    }

    #[test]
    fn top_n_sigma_comes_before_top_k() {
        // The deviation is that of all logits, 7.0: of the two that top-k leaves it would be 0.5.
        let logits = [20.0, 19.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let wide = SamplingParams { temperature: 50.0, top_k: 2, top_n_sigma: 1.0, min_p: 0.0, ..params() };
        let mut sampler = Sampler::new(wide).unwrap();
        let n = (0..100).filter(|_| sampler.sample(&mut logits.clone()) == 1).count();
        assert!(n > 20, "{n}");
    }

    #[test]
    fn mirostat_comes_near_the_surprise_that_is_wanted() {
        let mirostat = Some(MirostatParams { tau: 2.0, eta: 0.1 });
        // What it replaces would leave one token.
        let params = SamplingParams { temperature: 1.0, top_k: 1, repeat_penalty: 9.0, mirostat, ..params() };
        let mut sampler = Sampler::new(params).unwrap();
        let logits: Vec<f32> = (0..64).map(|id| -0.2 * id as f32).collect();
        let (mut bits, n) = (0.0, 4000);
        for _ in 0..n {
            let token = sampler.sample(&mut logits.clone());
            sampler.accept(token);
            let drawn = sampler.candidates.iter().position(|c| c.id == token).unwrap();
            bits -= f64::from(sampler.probabilities[drawn]).log2();
        }
        assert!((bits / f64::from(n) - 2.0).abs() < 0.05, "{}", bits / f64::from(n));
        // Without a temperature there is no surprise to control.
        sampler.params.temperature = 0.0;
        assert_eq!(sampler.sample(&mut [0.0, 3.0, 1.0]), 1);
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
