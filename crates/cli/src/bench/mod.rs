//! `metallic bench`: how fast a model reads prompts (pp) and generates (tg).
//!
//! The tests are those of llama.cpp's `llama-bench`, so that values compare: a prompt of random tokens, of
//! which the last gives logits; generation that feeds random tokens one at a time, each giving logits. Both
//! may begin at a depth, after so many tokens that are not timed. Nothing is sampled.

pub(crate) mod bandwidth;
mod guessed;
mod report;

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use metallic::engine::Stats;
use metallic::model::{Piece, Role, SequenceId};
use metallic::{Engine, Model};

use crate::args::{BenchArgs, BenchSpec, ComputeArgs, DraftArgs, EngineArgs, RateArgs, Spec, SpecArgs};
use crate::budget;
use crate::cost::{Cost, Meter};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::model_file::{self, Planned, kind_of};
use crate::rates::{self, GpuRates};
use crate::speculation::{self, Guessing};
use crate::terminal::Terminal;
use guessed::Guessed;
use report::{Row, Subject};

/// A repetition takes at least this, whatever a coarse clock says: its time is divided by.
const SHORTEST: Duration = Duration::from_nanos(1);

/// One thing to measure: reading `n_prompt` tokens and then generating `n_gen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
    /// Tokens in the context before.
    n_depth: usize,
    /// Sequences that do so at the same time.
    n_parallel: usize,
    /// What guesses, where an engine generates.
    spec: Option<BenchSpec>,
}

impl Test {
    /// As `llama-bench` names it: `pp512`, `tg128`, `pp512+tg128`, `tg128 @ d4096`; and `tg128 x8` for eight sequences.
    fn name(self) -> String {
        let name = match (self.n_prompt, self.n_gen) {
            (n_prompt, 0) => format!("pp{n_prompt}"),
            (0, n_gen) => format!("tg{n_gen}"),
            (n_prompt, n_gen) => format!("pp{n_prompt}+tg{n_gen}"),
        };
        let name = if self.n_parallel == 1 { name } else { format!("{name} x{}", self.n_parallel) };
        let name = self.spec.map_or(name.clone(), |how| format!("{name} spec {}", how.name()));
        if self.n_depth == 0 { name } else { format!("{name} @ d{}", self.n_depth) }
    }
}

impl Test {
    /// Tokens of each sequence.
    fn n_tokens(self) -> usize {
        let own = if self.spec.is_some() { guessed::N_PROMPT + 1 } else { 0 };
        own + self.n_depth + self.n_prompt + self.n_gen
    }
}

/// Runs the tests and prints what they showed.
pub(crate) fn run(args: &BenchArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let tests = tests(args)?;
    let path = fetcher.locate(args.model.name())?.path;
    let isa = args.compute.isa();
    let subject = Subject::new(&model_file::open(&path)?, isa)?;
    let n_ctx = tests.iter().map(|test| test.n_tokens()).max();
    let n_ctx = n_ctx.and_then(|n| u32::try_from(n).ok());
    let default_threads = [metallic::default_threads().min(u16::MAX.into()) as u16];
    let threads = if args.threads.is_empty() { &default_threads[..] } else { &args.threads };

    let budget = budget::to_run_in(&args.compute);
    let n_sequences = args.parallel.iter().copied().max().unwrap_or(1).into();
    let [by_lookup, by_draft] = speculations(args);
    let draft = match args.spec.contains(&BenchSpec::Draft) {
        true => speculation::draft_file(&by_draft, fetcher)?,
        false => None,
    };
    let mut rows = Vec::new();
    for &n_threads in threads {
        let engine = EngineArgs {
            ctx_size: n_ctx,
            threads: Some(n_threads),
            n_sequences,
            guesses: args.spec.contains(&BenchSpec::Lookup),
            compute: args.compute.clone(),
        };
        let (file, given) = (model_file::open(&path)?, RateArgs::default());
        let shorter = "shorter tests (-p, -n, -d)";
        let guessing = Guessing::plan(&by_draft, draft.as_deref(), &engine, budget, fetcher.terminal)?;
        let left = guessing.leaves(budget);
        let planned = Planned::new(file, &engine, left, shorter, &given, fetcher.terminal)?;
        let tokenizer = model_file::tokenizer(planned.file());
        // Before the model, which may be meant to fill what memory there is.
        let rates = Rates::measure(&args.compute, &planned, n_threads.into(), fetcher.terminal)?;
        let mut model = planned.load(&engine, fetcher.terminal)?;
        let n_runs = tests.len() as u64 * u64::from(args.repetitions);
        let bar = fetcher.terminal.step_bar("measuring", n_runs);
        let sequences: Vec<SequenceId> = (0..n_sequences).map(|_| model.create_sequence()).collect();
        let cannot = |e| Failure::new(kind_of(&e), "can't run the model").because(e);
        let capacity = model.capacity();
        let mut push = |test: Test, began, measured| {
            rows.push(Row::new(&subject, test, n_threads, capacity, rates, began, measured));
        };
        for &test in tests.iter().filter(|test| test.spec.is_none()) {
            let sequences = sequences[..test.n_parallel].to_vec();
            let began = jiff::Timestamp::now();
            bar.set_message(format!("{} -t {n_threads}", test.name()));
            let mut bench = Bench { sequences, model: &mut model, bar: &bar };
            push(test, began, bench.run(test, args.repetitions).map_err(cannot)?);
        }
        if !args.spec.is_empty() {
            sequences.into_iter().for_each(|sequence| model.release_sequence(sequence));
            let n_max = args.draft.draft_max.into();
            let mut guessed = Guessed::new(Engine::new(model, tokenizer?), n_max, &tests).map_err(cannot)?;
            let mut draft = Some(guessing);
            for &how in &args.spec {
                let guessing = match how {
                    BenchSpec::Lookup => {
                        Some(Guessing::plan(&by_lookup, None, &engine, budget, fetcher.terminal)?)
                    }
                    BenchSpec::Draft => draft.take(),
                    BenchSpec::Off | BenchSpec::Replay | BenchSpec::Wrong => None,
                };
                match guessing {
                    Some(guessing) => guessing.begin(&mut guessed.engine, fetcher.terminal)?,
                    None => guessed.replay(how).map_err(cannot)?,
                }
                for &test in tests.iter().filter(|test| test.spec == Some(how)) {
                    let began = jiff::Timestamp::now();
                    bar.set_message(format!("{} -t {n_threads}", test.name()));
                    push(test, began, guessed.run(test, args.repetitions, &bar).map_err(cannot)?);
                }
            }
        }
        bar.finish_and_clear();
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.json {
        report::write_json(&mut out, &rows)
    } else {
        report::write_table(&mut out, &rows, fetcher.terminal)
    };
    written.and_then(|()| out.flush()).map_err(Failure::output)
}

/// What the hardware reached just before, in bytes a second; `None` if it could not be measured.
#[derive(Clone, Copy)]
struct Rates {
    /// Plain reads of memory.
    memory: Option<f64>,
    /// Swapping weights in, where that is to be done.
    disk: Option<f64>,
    /// A GPU, where one computes; of several the first.
    gpu: GpuRates,
}

impl Rates {
    /// Before a planned model is loaded, and within its budget.
    fn measure(args: &ComputeArgs, planned: &Planned, n_threads: usize, terminal: &Terminal) -> Result<Self> {
        let bar = terminal.step_bar("measuring this machine", 3);
        bar.tick();
        let (file, plan) = (planned.file(), &planned.plan);
        let disk = rates::disk(file, plan)?;
        bar.inc(1);
        let memory = bandwidth::measure(n_threads, budget::room(plan))?;
        bar.inc(1);
        let gpus = match &planned.rates {
            _ if plan.devices.is_empty() => Vec::new(),
            Some(rates) => rates.gpus.clone(),
            None => rates::on_gpus(args, file, plan, n_threads)?,
        };
        let gpu = gpus.first().copied().unwrap_or_default();
        bar.finish_and_clear();
        Ok(Self { memory, disk, gpu })
    }
}

/// What guesses by look-up and by a model are to be like.
fn speculations(args: &BenchArgs) -> [SpecArgs; 2] {
    let lookup = DraftArgs { model_draft: None, ..args.draft.clone() };
    [(Spec::Lookup, lookup), (Spec::Draft, args.draft.clone())].map(|(spec, draft)| SpecArgs { spec, draft })
}

/// Every prompt length, every number to generate and every pair of both, at every depth, by as many sequences at a time as were
/// asked for; where guesses are measured, with each kind of them instead of none.
fn tests(args: &BenchArgs) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for (&n_depth, &n_parallel) in args.n_depth.iter().flat_map(|d| args.parallel.iter().map(move |p| (d, p)))
    {
        let lengths = args.n_prompt.iter().map(|&n| (n, 0)).chain(args.n_gen.iter().map(|&n| (0, n)));
        for (n_prompt, n_gen) in lengths.chain(args.pg.iter().copied()).filter(|lengths| *lengths != (0, 0)) {
            let n_tokens = n_prompt.checked_add(n_gen).and_then(|n| n.checked_add(n_depth));
            if n_tokens.is_none() {
                return Err(Failure::new(
                    Kind::Usage,
                    "no context holds so many tokens: choose a smaller -d",
                ));
            }
            let [n_prompt, n_gen, n_depth] = [n_prompt, n_gen, n_depth].map(|n| n as usize);
            tests.push(Test { n_prompt, n_gen, n_depth, n_parallel: n_parallel.into(), spec: None });
        }
    }
    if !args.spec.is_empty() {
        let (generated, others): (Vec<Test>, _) =
            tests.into_iter().partition(|test| test.n_prompt + test.n_depth == 0);
        tests = others;
        let guessed =
            |how: &BenchSpec| generated.iter().map(|test| Test { spec: Some(*how), ..*test }).collect();
        tests.extend(args.spec.iter().flat_map(|how| -> Vec<Test> { guessed(how) }));
    }
    if tests.is_empty() {
        return Err(Failure::new(Kind::Usage, "there is nothing to measure: -p and -n are 0"));
    }
    Ok(tests)
}

/// What the repetitions of a test showed.
struct Measured {
    samples: Vec<Duration>,
    /// Of all of them.
    cost: Cost,
    /// What computed beside the CPU.
    devices: Vec<String>,
    /// Of tokens that were guessed, in all repetitions.
    guesses: Option<Stats>,
}

/// A model and the sequences that tests run in.
struct Bench<'m> {
    model: &'m mut Model,
    sequences: Vec<SequenceId>,
    /// Counts repetitions, and shows with each pass that there is life.
    bar: &'m ProgressBar,
}

impl Bench<'_> {
    /// The time of each repetition of a test.
    fn run(&mut self, test: Test, n_repetitions: u32) -> metallic::Result<Measured> {
        self.sequences.iter().for_each(|&sequence| self.model.truncate_sequence(sequence, 0));
        self.read(test, 0, test.n_depth, false)?;
        // A prompt is warmed up in full, as its batches have their own buffers; generation by a token.
        self.once(Test { n_gen: test.n_gen.min(1), ..test })?;
        let meter = Meter::start(self.model);
        let mut samples = Vec::new();
        for _ in 0..n_repetitions {
            self.return_to_depth(test)?;
            let started = Instant::now();
            self.once(test)?;
            samples.push(started.elapsed().max(SHORTEST));
            // Other weights would be another measurement.
            self.model.check_files()?;
            self.bar.inc(1);
        }
        Ok(Measured { samples, cost: meter.stop(self.model), devices: self.model.devices(), guesses: None })
    }

    /// Reads what comes before a test again where the model can't be cut back, so that the test does not.
    fn return_to_depth(&mut self, test: Test) -> metallic::Result<()> {
        if self.model.config().can_be_cut_back() {
            return Ok(());
        }
        self.sequences.iter().for_each(|&sequence| self.model.truncate_sequence(sequence, 0));
        self.read(test, 0, test.n_depth, false)
    }

    /// Runs a test from its depth on. What an earlier run left there is written over.
    fn once(&mut self, test: Test) -> metallic::Result<()> {
        self.read(test, test.n_depth, test.n_prompt, true)?;
        let start = test.n_depth + test.n_prompt;
        let all = 0..self.sequences.len();
        (start..start + test.n_gen)
            .try_for_each(|position| self.forward(all.clone(), position, 1, Role::Generated, true))
    }

    /// Reads the tokens of one sequence after another in batches; logits, if at all, of the last one only.
    fn read(
        &mut self,
        test: Test,
        start: usize,
        n_tokens: usize,
        wants_logits: bool,
    ) -> metallic::Result<()> {
        let (n_batch, end) = (self.model.n_batch(), start + n_tokens);
        let role = Role::Prompt { len: test.n_depth + test.n_prompt };
        for sequence in 0..self.sequences.len() {
            for position in (start..end).step_by(n_batch) {
                let n = n_batch.min(end - position);
                let wants_logits = wants_logits && position + n == end;
                self.forward(sequence..sequence + 1, position, n, role, wants_logits)?;
            }
        }
        Ok(())
    }

    /// Computes as many tokens of each of some sequences.
    fn forward(
        &mut self,
        sequences: Range<usize>,
        start: usize,
        n_tokens: usize,
        role: Role,
        wants_logits: bool,
    ) -> metallic::Result<()> {
        let n_vocab = self.model.config().n_vocab as u64;
        let logits = n_tokens - usize::from(wants_logits)..n_tokens;
        let positions = start..start + n_tokens;
        // Each sequence has its own tokens, as experts are chosen by them.
        let of = |i: usize| positions.clone().map(move |position| token(i, position, n_vocab));
        let tokens: Vec<Vec<u32>> = sequences.clone().map(|i| of(i).collect()).collect();
        let pieces = self.sequences[sequences].iter().zip(&tokens).map(|(&sequence, tokens)| Piece {
            sequence,
            start,
            tokens,
            role,
            logits: logits.clone(),
        });
        let pieces: Vec<Piece<'_>> = pieces.collect();
        self.bar.tick();
        let n_at_once = self.model.n_batch() / n_tokens;
        pieces.chunks(n_at_once).try_for_each(|pieces| self.model.forward(pieces, &mut |_, _| {}))
    }
}

/// A token for a position of a sequence: any, as speed does not depend on it but for the choice of experts, which wants
/// variety. The same every time, by multiplicative hashing (Knuth, TAOCP 3, 6.4).
fn token(sequence: usize, position: usize, n_vocab: u64) -> u32 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
    let place = (sequence as u64) << 32 | position as u64;
    (((place + 1).wrapping_mul(GOLDEN) >> 32) % n_vocab) as u32
}
