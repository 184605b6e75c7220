//! A language model: hyper-parameters, weights and the forward pass.
//!
//! One forward pass serves every architecture: `arch` reads metadata into a [`ModelConfig`] of independent
//! features, `weights` finds the tensors, and `decoder` runs the layers on a [`Backend`](crate::backend).

mod arch;
mod attention;
pub(crate) mod boundary;
pub(crate) mod cache;
mod capacity;
pub(crate) mod census;
pub mod config;
pub(crate) mod decoder;
mod delta_net;
mod ffn;
pub(crate) mod history;
pub(crate) mod kv_cache;
mod latent;
mod mamba2;
pub(crate) mod moe;
pub(crate) mod part;
pub(crate) mod repeats;
mod residual;
mod role;
pub(crate) mod route;
mod saved;
pub(crate) mod scratch;
mod short_conv;
pub(crate) mod stage;
pub(crate) mod unused;
pub(crate) mod weights;
mod work;

use std::ops::Range;

pub use arch::{read_config, supported as supported_architectures};
pub use capacity::Capacity;
pub use census::{Usage, WeightMatrix};
pub use config::ModelConfig;
pub use kv_cache::SequenceId;
pub(crate) use repeats::{MIN_MATCH, Repeats};
pub(crate) use role::ReadAs;
pub use role::Role;
pub use unused::{unread_keys, unused_tensors};
pub use work::{Products, TokenWork};

use crate::backend::DeviceStats;
use crate::error::{Error, Result};
use crate::memory::{FileStamp, Lease, StreamStats, Tier};
use boundary::Boundary;
use history::History;
use kv_cache::PageTable;
use part::{Parts, Segment, segments};
use route::{Route, Routes};
use stage::{Asked, Batch, Stage};

/// A model that is ready to run, with the keys and values of the sequences it has seen.
pub struct Model {
    config: ModelConfig,
    capacity: Capacity,
    stages: Vec<Box<dyn Stage>>,
    routes: Routes,
    /// A way through the model for each route.
    ways: Vec<Way>,
    boundary: Boundary,
    pages: PageTable,
    /// Where what a sequence remembers can't be cut back.
    history: Option<History>,
    rows: Rows,
    /// Of the files that weights still come from.
    stamps: Vec<FileStamp>,
    ram: Tier,
    /// What the program holds beside this, and the pages of maps.
    _elsewhere: Lease,
}

/// From the embedding to the head, on one route.
struct Way {
    route: Route,
    segments: Vec<Segment>,
    /// The parts of each stage.
    parts: Vec<Parts>,
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Whose they are.
    pub sequence: SequenceId,
    /// Position of the first. What the sequence holds from there on is written over.
    pub start: usize,
    /// The tokens.
    pub tokens: &'a [u32],
    /// What they are. It decides the bits of what comes of them, as nothing else in the batch does.
    pub role: Role,
    /// Which of the tokens' logits are wanted.
    pub logits: Range<usize>,
}

/// Which token a row of logits follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogitsOf {
    /// Index of the piece.
    pub piece: usize,
    /// Position of the token in its sequence.
    pub position: usize,
}

/// The rows of a batch, in buffers that are used again.
#[derive(Default)]
struct Rows {
    /// The pieces, in the order of their rows.
    order: Vec<usize>,
    ids: Vec<u32>,
    positions: Vec<u32>,
    outputs: Vec<u32>,
    outputs_of: Vec<LogitsOf>,
}

impl Model {
    pub(crate) fn new(
        config: ModelConfig,
        capacity: Capacity,
        stages: Vec<Box<dyn Stage>>,
        routes: Routes,
        stamps: Vec<FileStamp>,
        ram: Tier,
        elsewhere: Lease,
    ) -> Result<Self> {
        let pages = PageTable::new(capacity.n_pages()?);
        let history = (!config.can_be_cut_back()).then(|| History::new(capacity, &ram)).transpose()?;
        let boundary = Boundary::new(&config, &routes, capacity, &ram)?;
        let way = |(route, stage_of): (Route, &[usize])| Way {
            route,
            segments: segments(stage_of),
            parts: (0..stages.len()).map(|stage| Parts::of_stage(stage_of, stage)).collect(),
        };
        let ways = routes.each().map(way).collect();
        let rows = Rows::default();
        Ok(Self {
            config,
            capacity,
            stages,
            routes,
            ways,
            boundary,
            pages,
            history,
            rows,
            stamps,
            ram,
            _elsewhere: elsewhere,
        })
    }

    /// Looks whether the files that weights are streamed from, or used in the maps of, are still what they were.
    /// [`Engine`](crate::Engine) and [`Model::evaluate`] do; after [`Model::forward`] it is for the caller.
    ///
    /// # Errors
    /// [`Error::FileChanged`], for the first that is not. What was computed since the last check is then void.
    pub fn check_files(&self) -> Result<()> {
        self.stamps.iter().try_for_each(FileStamp::check)
    }

    /// What an error comes of: weights that have changed explain any. Only a read that failed says more itself, where.
    pub(crate) fn explained(&self, error: Error) -> Error {
        match error {
            Error::Stream { .. } => error,
            error => self.check_files().err().unwrap_or(error),
        }
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// How much it holds and does at a time.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The account that everything the model holds is charged to.
    pub fn ram(&self) -> &Tier {
        &self.ram
    }

    /// Room for finding what came before in its sequences.
    pub(crate) fn repeats(&self) -> Result<Repeats> {
        Repeats::new(self.capacity, &self.ram)
    }

    /// Positions that a sequence may hold.
    pub fn n_ctx(&self) -> usize {
        self.capacity.n_ctx
    }

    /// Rows that a forward pass may have.
    pub fn n_batch(&self) -> usize {
        self.capacity.n_batch
    }

    /// Whether tokens of two roles take the same way and the same kernels, and so have the same bits at the same place.
    pub(crate) fn sums_alike(&self, a: Role, b: Role) -> bool {
        let experts = self.config.layers.iter().filter_map(|layer| layer.ffn.as_ref()?.experts.as_ref());
        let shares = experts.map(|experts| (experts.n_used, experts.n_expert));
        let mut shares = std::iter::once((1, 1)).chain(shares);
        self.routes.of(a) == self.routes.of(b)
            && shares.all(|share| a.takes_gemm(share) == b.takes_gemm(share))
    }

    /// One line for logs: what computes, with what.
    pub fn description(&self) -> String {
        self.descriptions(0..self.stages.len()).join("; ")
    }

    /// What computes beside the CPU, a line for each.
    pub fn devices(&self) -> Vec<String> {
        self.descriptions(1..self.stages.len())
    }

    /// Of those stages that have parts to compute.
    fn descriptions(&self, stages: Range<usize>) -> Vec<String> {
        let computing = stages.filter(|stage| !self.routes.parts(*stage).is_empty());
        computing.map(|stage| self.stages[stage].description()).collect()
    }

    /// What streaming weights has cost so far; `None` where all are in memory.
    pub fn stream_stats(&self) -> Option<StreamStats> {
        self.stages.iter().filter_map(|stage| stage.stream_stats()).reduce(StreamStats::and)
    }

    /// How often the devices that compute parts were given work so far; `None` where the CPU computes alone.
    pub fn device_stats(&self) -> Option<DeviceStats> {
        self.stages.iter().filter_map(|stage| stage.device_stats()).reduce(DeviceStats::and)
    }

    /// A new, empty sequence.
    pub fn create_sequence(&mut self) -> SequenceId {
        self.pages.create()
    }

    /// Whether sequences can [share](Model::share_sequence) what they begin with: not where layers have states.
    pub fn can_share(&self) -> bool {
        self.history.is_none()
    }

    /// Has one sequence begin with the first `len` positions of another, in place of what it holds. They share memory until
    /// either writes to it.
    ///
    /// # Panics
    /// If the other holds fewer, or the model's sequences [can't share](Model::can_share).
    pub fn share_sequence(&mut self, from: SequenceId, to: SequenceId, len: usize) {
        assert!(self.can_share(), "states are not shared");
        self.pages.share(from, to, len);
    }

    /// Whether there are pages for all of these positions to be written.
    pub(crate) fn has_room(&self, written: impl Iterator<Item = (SequenceId, Range<usize>)>) -> bool {
        let needs = written.map(|(id, positions)| self.pages.n_needed(id, &positions));
        needs.sum::<usize>() <= self.pages.n_free()
    }

    /// Forgets what a sequence holds from position `len` on.
    pub fn truncate_sequence(&mut self, id: SequenceId, len: usize) {
        self.pages.truncate(id, len);
    }

    /// Forgets a sequence.
    pub fn release_sequence(&mut self, id: SequenceId) {
        self.pages.release(id);
    }

    /// Runs one batch and hands the logits asked for to `sink`, those of a piece in order of positions.
    ///
    /// # Errors
    /// A token outside the vocabulary, a position outside the context, or no free page for a sequence. The
    /// sequences then hold what they held before. After any other error they hold what comes before their pieces.
    ///
    /// # Panics
    /// If there are more rows than [`Model::n_batch`], no rows, two pieces of one sequence, or logits asked for of no token.
    pub fn forward(
        &mut self,
        pieces: &[Piece<'_>],
        sink: &mut dyn FnMut(LogitsOf, &mut [f32]),
    ) -> Result<()> {
        self.forward_unless(&|| false, None, pieces, sink)
    }

    /// The same, unless it is interrupted on the way: it looks whether it is before each of the model's parts, half layers. If
    /// only so many of the largest logits of each row are wanted, the others may be given as negative infinity: a device then hands
    /// over a few numbers, and not a vocabulary.
    ///
    /// # Errors
    /// As [`Model::forward`], and [`Error::Interrupted`]. Then `sink` was given nothing, and each sequence holds what comes
    /// before its piece: the same piece again has the same bits. Where states can't be cut back, that reads the sequence again.
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn forward_unless(
        &mut self,
        is_interrupted: &dyn Fn() -> bool,
        n_best: Option<usize>,
        pieces: &[Piece<'_>],
        sink: &mut dyn FnMut(LogitsOf, &mut [f32]),
    ) -> Result<()> {
        let n_rows: usize = pieces.iter().map(|piece| piece.tokens.len()).sum();
        assert!((1..=self.n_batch()).contains(&n_rows), "{n_rows} rows in a batch of {}", self.n_batch());
        let is_alone = |(i, piece): (usize, &Piece<'_>)| {
            pieces[..i].iter().all(|other| other.sequence != piece.sequence)
        };
        assert!(pieces.iter().enumerate().all(is_alone), "two pieces of one sequence");
        for piece in pieces {
            self.check(piece)?;
        }
        for piece in pieces {
            let end = piece.start + piece.tokens.len();
            if let Some(copy) = self.pages.reserve(piece.sequence, piece.start..end)? {
                self.stages.iter_mut().for_each(|stage| stage.copy_page(copy));
            }
        }
        let result = self.read(Asked { is_interrupted, n_best }, pieces, sink);
        if result.is_err() {
            pieces.iter().for_each(|piece| self.pages.truncate(piece.sequence, piece.start));
        }
        result
    }

    /// Runs pieces that have pages, from the states before them.
    fn read(
        &mut self,
        asked: Asked<'_>,
        pieces: &[Piece<'_>],
        sink: &mut dyn FnMut(LogitsOf, &mut [f32]),
    ) -> Result<()> {
        let Some(mut history) = self.history.take() else { return self.run(asked, pieces, sink) };
        let mut return_to = |piece| self.return_to(asked, piece, &mut history);
        let result = pieces.iter().try_for_each(&mut return_to).and_then(|()| {
            history.forget(pieces, &self.pages);
            self.run(asked, pieces, sink)?;
            history.keep(pieces, &self.pages);
            Ok(())
        });
        self.history = Some(history);
        result
    }

    /// Brings a sequence's states to where a piece begins: where they are past that, its tokens are read again.
    fn return_to(&mut self, asked: Asked<'_>, piece: &Piece<'_>, history: &mut History) -> Result<()> {
        let slot = self.pages.slot(piece.sequence);
        if history.is_at(slot, piece.start) {
            return Ok(());
        }
        let n_batch = self.n_batch();
        for (first, tokens, role) in history.read_again(slot, piece.start) {
            for (i, tokens) in tokens.chunks(n_batch).enumerate() {
                let start = first + i * n_batch;
                let again = Piece { sequence: piece.sequence, start, tokens, role, logits: 0..0 };
                self.run(asked, &[again], &mut |_, _| {})?;
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        asked: Asked<'_>,
        pieces: &[Piece<'_>],
        sink: &mut dyn FnMut(LogitsOf, &mut [f32]),
    ) -> Result<()> {
        let result = self.ways.iter().try_for_each(|Way { route, segments, parts }| {
            self.rows.fill(pieces, |piece| self.routes.of(piece.role) == *route);
            let Rows { ids, positions, order, outputs, outputs_of } = &self.rows;
            if order.is_empty() {
                return Ok(());
            }
            let pages = &self.pages;
            let batch = Batch { ids, positions, pieces, order, pages, output_rows: outputs, asked };
            for (stage, parts) in self.stages.iter_mut().zip(parts).filter(|(_, parts)| !parts.is_empty()) {
                stage.begin(parts, &batch);
            }
            let mut sink = |output: usize, logits: &mut [f32]| sink(outputs_of[output], logits);
            segments.iter().try_for_each(|Segment { stage, parts }| {
                self.stages[*stage].run(parts.clone(), &batch, &mut self.boundary, &mut sink)
            })
        });
        if result.is_err() {
            self.stages.iter_mut().for_each(|stage| stage.give_up());
        }
        result
    }

    fn check(&self, piece: &Piece<'_>) -> Result<()> {
        assert!(piece.logits.end <= piece.tokens.len(), "logits of a token that is not there");
        let (n_ctx, n_vocab) = (self.n_ctx(), self.config.n_vocab);
        let end = piece.start.saturating_add(piece.tokens.len());
        if end > n_ctx {
            return Err(Error::PromptTooLong { n_prompt: end, n_ctx });
        }
        let n_sequences = self.capacity.n_sequences;
        if self.history.is_some() && self.pages.slot(piece.sequence) >= n_sequences {
            return Err(Error::StatesFull { n_sequences });
        }
        match piece.tokens.iter().find(|&&id| id as usize >= n_vocab) {
            Some(&id) => Err(Error::TokenOutOfRange { id, n_vocab }),
            None => Ok(()),
        }
    }

    /// Runs `tokens` as a sequence of their own, in as many batches as it takes, and hands the logits of the
    /// positions in `wanted` to `sink`.
    ///
    /// # Errors
    /// As [`Model::forward`], for all tokens before the first runs. Then [`Error::BrokenLogits`], or as
    /// [`Model::check_files`]: what `sink` was given is void.
    pub fn evaluate(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        sink: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let sequence = self.create_sequence();
        let role = Role::Prompt { len: tokens.len() };
        let result = self.check(&Piece { sequence, start: 0, tokens, role, logits: 0..0 });
        let result = result.and_then(|()| self.evaluate_in(sequence, tokens, wanted, sink));
        self.release_sequence(sequence);
        result
    }

    /// See [`Model::evaluate`].
    fn evaluate_in(
        &mut self,
        sequence: SequenceId,
        tokens: &[u32],
        wanted: Range<usize>,
        sink: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let (n_batch, role) = (self.n_batch(), Role::Prompt { len: tokens.len() });
        self.check_files()?;
        for (i, tokens) in tokens.chunks(n_batch).enumerate() {
            let start = i * n_batch;
            let inside = |position: usize| position.saturating_sub(start).min(tokens.len());
            let logits = inside(wanted.start)..inside(wanted.end);
            let piece = Piece { sequence, start, tokens, role, logits };
            let mut checked = Ok(());
            let passed = self.forward(&[piece], &mut |of, logits| {
                if checked.is_ok() {
                    checked = check_logits(of.position, logits);
                }
                if checked.is_ok() {
                    sink(of.position, logits);
                }
            });
            passed.and(checked).map_err(|error| self.explained(error))?;
        }
        self.check_files()
    }
}

/// Makes sure that a row of logits is a distribution.
///
/// # Errors
/// [`Error::BrokenLogits`].
pub(crate) fn check_logits(position: usize, logits: &[f32]) -> Result<()> {
    // Comparisons alone, as they are made of whole registers at a time: this runs for every token.
    let none_is_broken = logits.iter().fold(true, |all, &logit| all & (logit < f32::INFINITY));
    let some_is_possible = logits.iter().fold(false, |any, &logit| any | (logit > f32::NEG_INFINITY));
    if none_is_broken && some_is_possible {
        return Ok(());
    }
    // Unlike `f32::max`, this keeps what is not a number.
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, larger);
    Err(Error::BrokenLogits { position, largest })
}

impl Rows {
    /// With those pieces that go the way of a pass.
    fn fill(&mut self, pieces: &[Piece<'_>], goes_there: impl Fn(&Piece<'_>) -> bool) {
        self.ids.clear();
        self.positions.clear();
        self.outputs.clear();
        self.outputs_of.clear();
        self.order.clear();
        self.order.extend((0..pieces.len()).filter(|&index| goes_there(&pieces[index])));
        self.order.sort_by(|&a, &b| pieces[a].role.order(pieces[b].role));
        for &index in &self.order {
            let piece = &pieces[index];
            let first_row = self.ids.len();
            self.ids.extend(piece.tokens);
            self.positions.extend((piece.start..).take(piece.tokens.len()).map(|position| position as u32));
            self.outputs.extend(piece.logits.clone().map(|i| (first_row + i) as u32));
            self.outputs_of
                .extend(piece.logits.clone().map(|i| LogitsOf { piece: index, position: piece.start + i }));
        }
    }
}
