//! The one forward pass: embedding, layers, output head, or those of its parts that one backend computes.

use std::ops::Range;

use super::attention::Attention;
use super::boundary::Boundary;
use super::cache::{self, Cache};
use super::config::{MixerConfig, ModelConfig, Wiring};
use super::kv_cache::PageCopy;
use super::latent::Latent;
use super::part::{EMBEDDING, Part, Parts, mixer_of, n_parts, network_of};
use super::residual::{Reads, Residual};
use super::scratch::{LOGITS_OF_A_ROW, MAX_LOGIT_ROWS, Scratch, ScratchSizes};
use super::stage::{Batch, LogitSink, Stage};
use super::weights::{HeadWeights, LayerWeights, MixerWeights, NormWeights, Weights};
use super::{Capacity, delta_net, ffn, mamba2, short_conv};
use crate::backend::{Backend, ByteSink, ByteSource, DeviceStats, Input, Tokens};
use crate::error::{Error, Result};
use crate::memory::{Leased, StreamStats, Tier};

/// Parts of a model on one backend, with what their layers remember.
pub(crate) struct Decoder<B: Backend> {
    backend: B,
    config: ModelConfig,
    weights: Weights<B::Matrix, B::Buffer>,
    /// Of each layer whose mixer is here.
    caches: Vec<Option<Cache<B>>>,
    /// Of each of these that has keys and values.
    page_bytes: Vec<Option<usize>>,
    ropes: Ropes<B>,
    scratch: Scratch<B>,
    logits: Leased<Vec<f32>>,
    /// The parts that a pass has here: with those the backend expects the next one to begin, too. `None` where it expects
    /// nothing.
    announced: Option<Parts>,
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
        parts: &Parts,
        weights: Weights<B::Matrix, B::Buffer>,
        capacity: Capacity,
        ram: &Tier,
    ) -> Result<Self> {
        let Capacity { n_batch, n_ctx, n_sequences, kv_type } = capacity;
        let n_pages = capacity.n_pages()?;
        let factors = weights.rope_factors.of_context(n_ctx, &config)?;
        let sizes = cache::sizes(&config, parts, kv_type)?;
        // The caches first: they are the largest, and say so where there is no memory for them.
        let allocate = |size: &Option<cache::CacheSize>| {
            size.map(|size| size.allocate(&backend, n_pages, n_sequences)).transpose()
        };
        let caches = sizes.iter().map(allocate).collect::<Result<_>>()?;
        backend.reserve_inputs(n_batch, config.max_input_width(parts))?;
        backend.reserve_attention(&cache::layouts(&sizes), n_ctx)?;
        if let Some(needs) = config.expert_needs(parts) {
            backend.reserve_experts(n_batch, &needs)?;
        }
        let n_logits = if parts.has_head() { config.n_vocab } else { 0 };
        Ok(Self {
            ropes: Ropes::new(&mut backend, &config, parts, factors, n_batch)?,
            scratch: Scratch::new(&backend, &ScratchSizes::new(&config, parts, n_batch)?)?,
            page_bytes: sizes.iter().map(|size| size.as_ref()?.page_bytes()).collect(),
            caches,
            logits: ram.zeros(LOGITS_OF_A_ROW, n_logits)?,
            announced: None,
            backend,
            config,
            weights,
        })
    }

    /// The part of a layer in which tokens see each other.
    fn mix(&mut self, index: usize, batch: &Batch<'_>) -> Result<()> {
        let (config, weights) = (&self.config.layers[index], &self.weights.layers[index].mixer);
        let (Some(weights), Some(cache)) = (weights, &mut self.caches[index]) else { unreachable!("{HERE}") };
        let (backend, scratch) = (&mut self.backend, &mut self.scratch);
        // Before the mixer adds to what both parts read.
        let parallel = matches!(config.wiring, Wiring::Parallel { .. });
        let of_network = weights.network_norm.as_ref().or(weights.norm.as_ref()).filter(|_| parallel);
        if let Some(norm) = of_network {
            backend.norm(&norm.as_norm(), &scratch.hidden, batch.ids.len(), &mut scratch.normed);
        }
        let norm = weights.own_norm.as_ref().or(weights.norm.as_ref());
        let residual = Residual {
            reads: norm.map_or(Reads::Hidden, |norm| Reads::Norm(norm.as_norm())),
            post_norm: weights.post_norm.as_ref().map(NormWeights::as_norm),
            scale: config.residual_scale,
            tokens: batch.tokens(),
            width: self.config.n_embd,
        };
        let rope = self.ropes.of_layer[index].map(|rope| &self.ropes.distinct[rope]);
        match (&config.mixer, &weights.mixer, cache) {
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

    /// The part of a layer for each token alone, if it has one.
    fn feed_forward(&mut self, index: usize, batch: &Batch<'_>) -> Result<()> {
        let (config, weights) = (&self.config.layers[index], &self.weights.layers[index].network);
        let (Some(ffn_config), Some(weights)) = (&config.ffn, weights) else { return Ok(()) };
        let residual = Residual {
            reads: match &weights.norm {
                _ if matches!(config.wiring, Wiring::Parallel { .. }) => Reads::Normed,
                Some(norm) => Reads::Norm(norm.as_norm()),
                None => Reads::Hidden,
            },
            post_norm: weights.post_norm.as_ref().map(NormWeights::as_norm),
            scale: config.residual_scale,
            tokens: batch.tokens(),
            width: self.config.n_embd,
        };
        let (backend, scratch) = (&mut self.backend, &mut self.scratch);
        ffn::forward(backend, ffn_config, &weights.ffn, &residual, batch, scratch)
    }

    /// Logits of the rows asked for, a few rows at a time.
    fn head(&mut self, batch: &Batch<'_>, sink: LogitSink<'_>) -> Result<()> {
        let ModelConfig { n_embd, n_vocab, logit_scale, logit_softcap, .. } = self.config;
        let (backend, Some(head)) = (&mut self.backend, &self.weights.head) else { unreachable!("{HERE}") };
        let Scratch { hidden, output_hidden, logits, .. } = &mut self.scratch;
        let n_gemv = batch.tokens().gemv;
        for (group, rows) in batch.output_rows.chunks(MAX_LOGIT_ROWS).enumerate() {
            let gemv = rows.partition_point(|&row| (row as usize) < n_gemv);
            let tokens = Tokens { gemv, gemm: rows.len() - gemv };
            backend.gather_rows(hidden, rows, n_embd, output_hidden);
            let input = Input::Norm { x: output_hidden, norm: head.norm.as_norm() };
            backend.matmul(&input, tokens, &mut [head.output.job(&mut *logits)])?;
            if logit_scale != 1.0 {
                backend.scale(logits, logit_scale, rows.len() * n_vocab);
            }
            if let Some(cap) = logit_softcap {
                backend.softcap(logits, cap, rows.len() * n_vocab);
            }
            for row in 0..rows.len() {
                match batch.asked.n_best {
                    Some(n_best) => backend.read_best(logits, row * n_vocab, n_best, &mut self.logits)?,
                    None => backend.read(logits, row * n_vocab, &mut self.logits)?,
                }
                sink(group * MAX_LOGIT_ROWS + row, &mut self.logits);
            }
        }
        Ok(())
    }

    /// Tells the backend in what order the matrices from `layer` on will be used, as far as that is known: up to the
    /// next layer with experts, else to the head, which is used `n_heads` times, and into the next pass.
    fn announce(&mut self, layer: usize, n_heads: usize) {
        let Self { backend, weights, announced: Some(parts), .. } = self else { return };
        if announce_layers(backend, &weights.layers, layer, parts) {
            if let Some(HeadWeights { output, .. }) = weights.head.as_ref().filter(|_| parts.has_head()) {
                (0..n_heads).for_each(|_| backend.will_use(&output.matrix));
            }
            announce_layers(backend, &weights.layers, 0, parts);
        }
    }

    /// How often the head is used in a pass, if it is here.
    fn n_heads(&self, batch: &Batch<'_>) -> usize {
        self.weights.head.as_ref().map_or(0, |_| batch.output_rows.len().div_ceil(MAX_LOGIT_ROWS))
    }

    /// Tokens to the hidden state.
    fn embed(&mut self, batch: &Batch<'_>) -> Result<()> {
        let Self { backend, config, weights, scratch, .. } = self;
        let Some(weights) = &weights.embedding else { unreachable!("{HERE}") };
        backend.embed(&weights.tokens, batch.ids, config.embedding_scale, &mut scratch.hidden)?;
        if let Some(positions) = &weights.positions {
            backend.embed(positions, batch.positions, 1.0, &mut scratch.update)?;
            backend.add(&mut scratch.hidden, &scratch.update, 1.0, batch.ids.len() * config.n_embd);
        }
        if let Some(norm) = &weights.norm {
            backend.norm_in_place(&norm.as_norm(), &mut scratch.hidden, batch.ids.len(), 1);
        }
        Ok(())
    }

    fn run_part(&mut self, part: Part, batch: &Batch<'_>, sink: LogitSink<'_>) -> Result<()> {
        match part {
            Part::Embedding => self.embed(batch),
            Part::Mixer(layer) => self.mix(layer, batch),
            Part::Network(layer) => {
                self.feed_forward(layer, batch)?;
                if self.weights.layers[layer].experts().is_some() {
                    self.announce(layer + 1, self.n_heads(batch));
                }
                Ok(())
            }
            Part::Head => self.head(batch, sink),
        }
    }
}

/// A stage is given its own parts alone.
const HERE: &str = "a part of another stage";

/// Says of those parts of all layers from `first` up to the first with experts, and of that one up to its experts, that they
/// will be used. False if there is one.
fn announce_layers<B: Backend>(
    backend: &mut B,
    layers: &[LayerWeights<B::Matrix, B::Buffer>],
    first: usize,
    parts: &Parts,
) -> bool {
    for (number, layer) in layers.iter().enumerate().skip(first) {
        if let Some(part) = layer.mixer.as_ref().filter(|_| parts.has(mixer_of(number))) {
            part.mixer.each_matrix(&mut |matrix| backend.will_use(matrix));
        }
        if let Some(part) = layer.network.as_ref().filter(|_| parts.has(network_of(number))) {
            part.ffn.each_matrix(&mut |matrix| backend.will_use(matrix));
            if part.ffn.experts().is_some() {
                return false;
            }
        }
    }
    true
}

impl<B: Backend> Stage for Decoder<B> {
    fn begin(&mut self, parts: &Parts, batch: &Batch<'_>) {
        for rope in &mut self.ropes.distinct {
            self.backend.rope_positions(rope, batch.positions);
        }
        if self.announced.as_ref() != Some(parts) {
            // Another pass was expected, if any.
            self.backend.forget_uses();
            announce_layers(&mut self.backend, &self.weights.layers, 0, parts);
            self.announced = Some(parts.clone());
        }
        let has_experts = |(number, layer): (usize, &LayerWeights<_, _>)| {
            parts.has(network_of(number)) && layer.experts().is_some()
        };
        if !self.weights.layers.iter().enumerate().any(has_experts) {
            self.announce(self.config.layers.len(), self.n_heads(batch));
        }
    }

    fn run(
        &mut self,
        parts: Range<usize>,
        batch: &Batch<'_>,
        boundary: &mut Boundary,
        sink: LogitSink<'_>,
    ) -> Result<()> {
        let n_rows = batch.ids.len();
        if parts.start != EMBEDDING {
            boundary.enter(&self.config, parts.start, n_rows, &mut self.backend, &mut self.scratch)?;
        }
        let n_layers = self.config.layers.len();
        for number in parts.clone() {
            if (batch.asked.is_interrupted)() {
                return Err(Error::Interrupted);
            }
            self.run_part(Part::of(number, n_layers), batch, &mut *sink)?;
        }
        if parts.end != n_parts(n_layers) {
            boundary.leave(&self.config, parts.end, n_rows, &mut self.backend, &self.scratch)?;
        }
        Ok(())
    }

    fn copy_page(&mut self, PageCopy { from, to }: PageCopy) {
        for cache in self.caches.iter_mut().flatten() {
            if let Cache::Pages(kv) = cache {
                self.backend.copy_page(kv, from, to);
            }
        }
    }

    fn page_bytes(&self, layer: usize) -> Option<usize> {
        match &self.caches[layer] {
            Some(Cache::Pages(_)) => self.page_bytes[layer],
            Some(Cache::States(_)) | None => None,
        }
    }

    fn save_pages(&mut self, layer: usize, pages: &[u32], sink: ByteSink<'_>) -> Result<()> {
        let Some(Cache::Pages(kv)) = &self.caches[layer] else { return Ok(()) };
        pages.iter().try_for_each(|page| self.backend.save_page(kv, *page, &mut *sink))
    }

    fn load_pages(&mut self, layer: usize, pages: &[u32], source: ByteSource<'_>) -> Result<()> {
        let Some(Cache::Pages(kv)) = &mut self.caches[layer] else { return Ok(()) };
        pages.iter().try_for_each(|page| self.backend.load_page(kv, *page, &mut *source))
    }

    fn give_up(&mut self) {
        self.backend.forget_uses();
        self.announced = None;
    }

    fn stream_stats(&self) -> Option<StreamStats> {
        self.backend.stream_stats()
    }

    fn device_stats(&self) -> Option<DeviceStats> {
        self.backend.device_stats()
    }

    fn description(&self) -> String {
        self.backend.description()
    }

    fn arithmetic(&self) -> String {
        self.backend.arithmetic()
    }
}

impl<B: Backend> Ropes<B> {
    fn new(
        backend: &mut B,
        config: &ModelConfig,
        parts: &Parts,
        factors: Option<&B::Buffer>,
        n_batch: usize,
    ) -> Result<Self> {
        let configs = config.distinct_ropes(parts);
        let number = |rope| configs.iter().position(|known| *known == rope);
        let ropes = config.layers.iter().map(|layer| layer.mixer.attention()?.rope.as_ref());
        let of_layer = ropes.map(|rope| rope.and_then(number)).collect();
        let read = |buffer| {
            let mut factors = vec![0.0; configs.first().map_or(0, |rope| rope.n_rot / 2)];
            backend.read(buffer, 0, &mut factors).map(|()| factors)
        };
        let factors = factors.map(read).transpose()?;
        let distinct = configs.iter().map(|config| backend.rope(config, factors.as_deref(), n_batch));
        Ok(Self { distinct: distinct.collect::<Result<_>>()?, of_layer })
    }
}
