//! Generation as an engine does it, with tokens that are chosen and guessed: what guesses make of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use metallic::engine::{Proposer, RequestId, Speculation, Stats, Unfinished};
use metallic::sampling::SamplingParams;
use metallic::{Engine, Error, Event, Request};

use super::{Measured, SHORTEST, Test, token};
use crate::args::BenchSpec;
use crate::cost::Meter;

/// Tokens of each prompt, which are of no account.
pub(super) const N_PROMPT: usize = 16;

/// An engine that is measured.
pub(super) struct Guessed {
    pub(super) engine: Engine,
    /// Guesses for a pass, at most.
    n_max: usize,
    /// Answers, as they are without guesses, after their prompts.
    recorded: Arc<Vec<Vec<u32>>>,
}

impl Guessed {
    /// For tests, of which some may replay what is answered now.
    pub(super) fn new(mut engine: Engine, n_max: usize, tests: &[Test]) -> metallic::Result<Self> {
        let replays =
            tests.iter().filter(|test| matches!(test.spec, Some(BenchSpec::Replay | BenchSpec::Wrong)));
        let longest = replays.copied().reduce(|a, b| Test {
            n_gen: a.n_gen.max(b.n_gen),
            n_parallel: a.n_parallel.max(b.n_parallel),
            ..a
        });
        let recorded = longest.map(|test| answer(&mut engine, test, || ())).transpose()?;
        Ok(Self {
            engine,
            n_max,
            recorded: Arc::new(recorded.map_or_else(Vec::new, |answered| answered.all)),
        })
    }

    /// Has it guess what was recorded, if anything.
    pub(super) fn replay(&mut self, how: BenchSpec) -> metallic::Result<()> {
        let n_max = if how == BenchSpec::Off { 0 } else { self.n_max };
        let replay = Replay { recorded: Arc::clone(&self.recorded), is_wrong: how == BenchSpec::Wrong };
        self.engine.speculate(Speculation { n_max, ..Speculation::new(Box::new(replay)) })
    }

    /// The time of each repetition of a test, after one to warm up.
    pub(super) fn run(
        &mut self,
        test: Test,
        n_repetitions: u32,
        bar: &ProgressBar,
    ) -> metallic::Result<Measured> {
        answer(&mut self.engine, test, || bar.tick())?;
        let meter = Meter::start(self.engine.model());
        let (mut samples, mut guesses) = (Vec::new(), Stats::default());
        for _ in 0..n_repetitions {
            let answered = answer(&mut self.engine, test, || bar.tick())?;
            samples.push(answered.time);
            guesses.n_generated += answered.stats.n_generated;
            guesses.n_passes += answered.stats.n_passes;
            guesses.n_rows += answered.stats.n_rows;
            guesses.n_guessed += answered.stats.n_guessed;
            guesses.n_accepted += answered.stats.n_accepted;
            bar.inc(1);
        }
        let model = self.engine.model();
        Ok(Measured { samples, cost: meter.stop(model), devices: model.devices(), guesses: Some(guesses) })
    }
}

/// Guesses what was recorded, or something else: what guesses make of it at best and at worst.
struct Replay {
    recorded: Arc<Vec<Vec<u32>>>,
    is_wrong: bool,
}

impl Proposer for Replay {
    fn propose(&mut self, sequences: &mut [Unfinished<'_>]) -> metallic::Result<()> {
        for Unfinished { tokens, n_wanted, guesses, .. } in sequences {
            let Some(all) = self.recorded.iter().find(|all| all.starts_with(tokens)) else { continue };
            let rest = all[tokens.len()..].iter().take(n_wanted[0]);
            guesses.extend(rest.map(|token| if self.is_wrong { token ^ 1 } else { *token }));
        }
        Ok(())
    }

    fn description(&self) -> String {
        if self.is_wrong { "wrong guesses" } else { "a recorded answer" }.to_owned()
    }
}

/// What answers were, and how long the tokens after their first took.
struct Answered {
    time: Duration,
    all: Vec<Vec<u32>>,
    stats: Stats,
}

/// Answers as many prompts at a time as a test says, greedily; `tick` shows that there is life.
fn answer(engine: &mut Engine, test: Test, tick: impl Fn()) -> metallic::Result<Answered> {
    let n_vocab = engine.model().config().n_vocab as u64;
    let mut all = HashMap::<RequestId, Vec<u32>>::new();
    let mut ids = Vec::new();
    for sequence in 0..test.n_parallel {
        let prompt: Vec<u32> = (0..N_PROMPT).map(|position| token(sequence, position, n_vocab)).collect();
        let request = Request {
            sampling: SamplingParams::greedy(),
            // The first comes of the prompt.
            max_tokens: Some(test.n_gen + 1),
            ignore_eos: true,
            exact: true,
            ..Request::new(prompt.clone())
        };
        let id = engine.submit(request)?;
        all.insert(id, prompt);
        ids.push(id);
    }
    let (mut sum, mut time, mut failure) = (Stats::default(), SHORTEST, None);
    let mut hear = |event| match event {
        Event::Token { request, token, .. } => all.entry(request).or_default().push(token),
        Event::Finished { stats, .. } => {
            time = time.max(stats.decode);
            sum.n_generated += stats.n_generated - 1;
            sum.n_passes += stats.n_passes;
            sum.n_rows += stats.n_rows;
            sum.n_guessed += stats.n_guessed;
            sum.n_accepted += stats.n_accepted;
        }
        Event::Failed { error, .. } => failure = Some(error),
        Event::Text { .. } => {}
    };
    while engine.step(&mut hear) {
        tick();
    }
    match failure {
        None => {
            let all = ids.iter().filter_map(|id| all.remove(id)).collect();
            Ok(Answered { time, all, stats: sum })
        }
        Some(error) => Err(Arc::into_inner(error).unwrap_or(Error::Interrupted)),
    }
}
