//! The one forward pass: embedding, layers, output head.

use super::attention::Attention;
use super::cache::{self, Cache};
use super::config::{MixerConfig, ModelConfig, Wiring};
use super::kv_cache::PageTable;
use super::latent::Latent;
use super::residual::{Reads, Residual};
use super::scratch::{LOGITS_OF_A_ROW, MAX_LOGIT_ROWS, Scratch, ScratchSizes};
use super::weights::{LayerWeights, MixerWeights, NormWeights, Weights};
use super::{Capacity, Piece, delta_net, ffn, mamba2, moe, short_conv};
use crate::backend::{Backend, Input, Span, Tokens};
use crate::error::Result;
use crate::memory::{Leased, StreamStats, Tier};

/// The rows of one forward pass.
pub(crate) struct Batch<'a> {
    /// Token of each row.
    pub(crate) ids: &'a [u32],
    /// Position of each row in its sequence.
    pub(crate) positions: &'a [u32],
    /// Whose the rows are.
    pub(crate) pieces: &'a [Piece<'a>],
    /// The pieces, in the order of their rows: those that are multiplied one by one come before those in tiles.
    pub(crate) order: &'a [usize],
    /// Where what their sequences remember lies.
    pub(crate) pages: &'a PageTable,
    /// Rows whose logits are wanted, in order.
    pub(crate) output_rows: &'a [u32],
}

impl<'a> Batch<'a> {
    /// The rows of each piece.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span<'a>> {
        let (pieces, pages) = (self.pieces, self.pages);
        self.order.iter().map(|&index| &pieces[index]).scan(0, move |next_row, piece| {
            let (first_row, n_rows) = (*next_row, piece.tokens.len());
            *next_row += n_rows;
            let (pages, slot) = (pages.pages(piece.sequence), pages.slot(piece.sequence));
            Some(Span { first_row, n_rows, start: piece.start, pages, slot })
        })
    }

    /// How the rows are multiplied with matrices that see all of them.
    pub(crate) fn tokens(&self) -> Tokens {
        let gemv = self.n_gemv((1, 1));
        Tokens { gemv, gemm: self.ids.len() - gemv }
    }

    /// Rows that are multiplied one by one with matrices that see `n_used` of `n_all`: the first so many.
    pub(crate) fn n_gemv(&self, share: (usize, usize)) -> usize {
        let pieces = self.pieces.iter().filter(|piece| !piece.role.takes_gemm(share));
        pieces.map(|piece| piece.tokens.len()).sum()
    }
}

/// Takes the logits of one row: its place in `output_rows`, and the values, free to be changed.
pub(crate) type LogitSink<'a> = &'a mut dyn FnMut(usize, &mut [f32]);

/// What the engine sees of a model: the backend's type ends here.
pub(crate) trait Stage: Send {
    /// Runs a batch and hands out the logits asked for.
    fn forward(&mut self, batch: &Batch<'_>, sink: LogitSink<'_>) -> Result<()>;
    /// What streaming weights has cost so far; `None` where all are in memory.
    fn stream_stats(&self) -> Option<StreamStats>;
    /// One line for logs: what computes, with what.
    fn description(&self) -> String;
}

/// All layers of a model on one backend.
pub(crate) struct Decoder<B: Backend> {
    backend: B,
    config: ModelConfig,
    weights: Weights<B::Matrix, B::Buffer>,
    caches: Vec<Cache<B>>,
    ropes: Ropes<B>,
    scratch: Scratch<B>,
    routing: moe::Routing,
    logits: Leased<Vec<f32>>,
    /// Whether the backend knows with which layers the next pass begins.
    announced: bool,
}

/// The distinct rotations of a model, and which layer uses which.
struct Ropes<B: Backend> {
    distinct: Vec<B::Rope>,
    of_layer: Vec<Option<usize>>,
}

impl<B: Backend> Decoder<B> {
    /// Allocates everything that the plan lists but the weights.
    pub(crate) fn new(
        mut backend: B,
        config: ModelConfig,
        weights: Weights<B::Matrix, B::Buffer>,
        capacity: Capacity,
        ram: &Tier,
    ) -> Result<Self> {
        let Capacity { n_batch, n_ctx, n_sequences, kv_type } = capacity;
        let n_pages = capacity.n_pages()?;
        let factors = weights.rope_factors.of_context(n_ctx, &config)?;
        let sizes = cache::sizes(&config, kv_type)?;
        // The caches first: they are the largest, and say so where there is no memory for them.
        let caches = sizes.iter().map(|size| size.allocate(&backend, n_pages, n_sequences));
        let caches = caches.collect::<Result<_>>()?;
        backend.reserve_inputs(n_batch, config.max_input_width())?;
        backend.reserve_attention(&cache::layouts(&sizes), n_ctx)?;
        Ok(Self {
            ropes: Ropes::new(&mut backend, &config, factors, n_batch)?,
            scratch: Scratch::new(&backend, &ScratchSizes::new(&config, n_batch)?)?,
            caches,
            routing: moe::Routing::new(&config, n_batch, ram)?,
            logits: ram.zeros(LOGITS_OF_A_ROW, config.n_vocab)?,
            announced: false,
            backend,
            config,
            weights,
        })
    }

    fn layer(&mut self, index: usize, batch: &Batch<'_>) -> Result<()> {
        let (n_rows, weights) = (batch.ids.len(), &self.weights.layers[index]);
        let parallel = matches!(self.config.layers[index].wiring, Wiring::Parallel { .. });
        // Before the mixer adds to what both read.
        let ahead = weights.ffn_norm.as_ref().or(weights.norm.as_ref()).filter(|_| parallel);
        if let Some(norm) = ahead {
            self.backend.norm(&norm.as_norm(), &self.scratch.hidden, n_rows, &mut self.scratch.normed);
        }
        self.mix(index, batch)?;

        let (config, weights) = (&self.config.layers[index], &self.weights.layers[index]);
        let (Some(ffn_config), Some(ffn_weights)) = (&config.ffn, &weights.ffn) else { return Ok(()) };
        let residual = Residual {
            reads: match &weights.ffn_norm {
                _ if parallel => Reads::Normed,
                Some(norm) => Reads::Norm(norm.as_norm()),
                None => Reads::Hidden,
            },
            post_norm: weights.post_ffn_norm.as_ref().map(NormWeights::as_norm),
            scale: config.residual_scale,
            tokens: batch.tokens(),
            width: self.config.n_embd,
        };
        let (backend, scratch) = (&mut self.backend, &mut self.scratch);
        ffn::forward(backend, ffn_config, ffn_weights, &residual, batch, &mut self.routing, scratch)
    }

    /// The part of a layer in which tokens see each other.
    fn mix(&mut self, index: usize, batch: &Batch<'_>) -> Result<()> {
        let (config, weights) = (&self.config.layers[index], &self.weights.layers[index]);
        let norm = weights.mixer_norm.as_ref().or(weights.norm.as_ref());
        let residual = Residual {
            reads: norm.map_or(Reads::Hidden, |norm| Reads::Norm(norm.as_norm())),
            post_norm: weights.post_mixer_norm.as_ref().map(NormWeights::as_norm),
            scale: config.residual_scale,
            tokens: batch.tokens(),
            width: self.config.n_embd,
        };
        let rope = self.ropes.of_layer[index].map(|rope| &self.ropes.distinct[rope]);
        let (backend, scratch) = (&mut self.backend, &mut self.scratch);
        match (&config.mixer, &weights.mixer, &mut self.caches[index]) {
            (MixerConfig::Attention(config), MixerWeights::Attention(weights), Cache::Pages(kv)) => {
                Attention { config, weights, residual, rope, kv }.forward(backend, batch, scratch)
            }
            (MixerConfig::Latent(config), MixerWeights::Latent(weights), Cache::Pages(kv)) => {
                Latent { config, weights, residual, rope, kv }.forward(backend, batch, scratch)
            }
            (MixerConfig::ShortConv(config), MixerWeights::ShortConv(weights), Cache::States(states)) => {
                short_conv::forward(backend, config, weights, &residual, states, batch, scratch)
            }
            (MixerConfig::Mamba2(config), MixerWeights::Mamba2(weights), Cache::States(states)) => {
                mamba2::forward(backend, config, weights, &residual, states, batch, scratch)
            }
            (MixerConfig::DeltaNet(config), MixerWeights::DeltaNet(weights), Cache::States(states)) => {
                delta_net::forward(backend, config.shape, weights, &residual, states, batch, scratch)
            }
            _ => unreachable!("weights and cache are made from the layer's configuration"),
        }
    }

    /// Logits of the rows asked for, a few rows at a time.
    fn head(&mut self, batch: &Batch<'_>, sink: LogitSink<'_>) -> Result<()> {
        let ModelConfig { n_embd, n_vocab, logit_scale, logit_softcap, .. } = self.config;
        let (backend, weights) = (&mut self.backend, &self.weights);
        let Scratch { hidden, output_hidden, logits, .. } = &mut self.scratch;
        let n_gemv = batch.tokens().gemv;
        for (group, rows) in batch.output_rows.chunks(MAX_LOGIT_ROWS).enumerate() {
            let gemv = rows.partition_point(|&row| (row as usize) < n_gemv);
            let tokens = Tokens { gemv, gemm: rows.len() - gemv };
            backend.gather_rows(hidden, rows, n_embd, output_hidden);
            let input = Input::Norm { x: output_hidden, norm: weights.output_norm.as_norm() };
            backend.matmul(&input, tokens, &mut [weights.output.job(&mut *logits)])?;
            if logit_scale != 1.0 {
                (0..rows.len()).for_each(|row| backend.scale_row(logits, row, n_vocab, logit_scale));
            }
            if let Some(cap) = logit_softcap {
                backend.softcap(logits, cap, rows.len() * n_vocab);
            }
            for row in 0..rows.len() {
                backend.read(logits, row * n_vocab, &mut self.logits);
                sink(group * MAX_LOGIT_ROWS + row, &mut self.logits);
            }
        }
        Ok(())
    }

    /// Tells the backend in what order the matrices from `layer` on will be used, as far as that is known: up to the
    /// next layer with experts, else to the head, which is used `n_heads` times, and into the next pass.
    fn announce(&mut self, layer: usize, n_heads: usize) {
        let Self { backend, weights, .. } = self;
        if announce_layers(backend, &weights.layers[layer..]) {
            (0..n_heads).for_each(|_| backend.will_use(&weights.output.matrix));
            announce_layers(backend, &weights.layers);
        }
    }

    fn run(&mut self, batch: &Batch<'_>, sink: LogitSink<'_>) -> Result<()> {
        let Self { backend, config, weights, ropes, scratch, .. } = self;
        for rope in &mut ropes.distinct {
            backend.rope_positions(rope, batch.positions);
        }
        backend.embed(&weights.token_embedding, batch.ids, config.embedding_scale, &mut scratch.hidden)?;
        if let Some(positions) = &weights.positions {
            backend.embed(positions, batch.positions, 1.0, &mut scratch.update)?;
            backend.add(&mut scratch.hidden, &scratch.update, 1.0, batch.ids.len() * config.n_embd);
        }
        if let Some(norm) = &weights.embedding_norm {
            backend.norm_in_place(&norm.as_norm(), &mut scratch.hidden, batch.ids.len(), 1);
        }
        let n_heads = batch.output_rows.len().div_ceil(MAX_LOGIT_ROWS);
        let n_layers = self.config.layers.len();
        if !self.announced {
            announce_layers(&mut self.backend, &self.weights.layers);
            self.announced = true;
        }
        if self.weights.layers.iter().all(|layer| layer.experts().is_none()) {
            self.announce(n_layers, n_heads);
        }
        for index in 0..n_layers {
            self.layer(index, batch)?;
            if self.weights.layers[index].experts().is_some() {
                self.announce(index + 1, n_heads);
            }
        }
        self.head(batch, sink)
    }
}

/// Says of all layers up to the first with experts, and of that one up to its experts, that they will be used.
/// False if there is one.
fn announce_layers<B: Backend>(backend: &mut B, layers: &[LayerWeights<B::Matrix, B::Buffer>]) -> bool {
    for layer in layers {
        layer.each_matrix(&mut |matrix| backend.will_use(matrix));
        if layer.experts().is_some() {
            return false;
        }
    }
    true
}

impl<B: Backend> Stage for Decoder<B>
where
    Self: Send,
{
    fn forward(&mut self, batch: &Batch<'_>, sink: LogitSink<'_>) -> Result<()> {
        let result = self.run(batch, sink);
        if result.is_err() {
            self.backend.forget_uses();
            self.announced = false;
        }
        result
    }

    fn stream_stats(&self) -> Option<StreamStats> {
        self.backend.stream_stats()
    }

    fn description(&self) -> String {
        self.backend.description()
    }
}

impl<B: Backend> Ropes<B> {
    fn new(
        backend: &mut B,
        config: &ModelConfig,
        factors: Option<&B::Buffer>,
        n_batch: usize,
    ) -> Result<Self> {
        let configs = config.distinct_ropes();
        let number = |rope| configs.iter().position(|known| *known == rope);
        let ropes = config.layers.iter().map(|layer| layer.mixer.attention()?.rope.as_ref());
        let of_layer = ropes.map(|rope| rope.and_then(number)).collect();
        let factors = factors.map(|buffer| {
            let mut factors = vec![0.0; configs.first().map_or(0, |rope| rope.n_rot / 2)];
            backend.read(buffer, 0, &mut factors);
            factors
        });
        let distinct = configs.iter().map(|config| backend.rope(config, factors.as_deref(), n_batch));
        Ok(Self { distinct: distinct.collect::<Result<_>>()?, of_layer })
    }
}
