//! The one forward pass: embedding, layers, output head.

use super::attention::Attention;
use super::config::ModelConfig;
use super::kv_cache::{PageTable, layouts};
use super::residual::Residual;
use super::scratch::{LOGITS_OF_A_ROW, MAX_LOGIT_ROWS, Scratch, ScratchSizes};
use super::weights::{AttentionWeights, FfnWeights, LayerWeights, Weights};
use super::{Piece, ffn, moe};
use crate::backend::{Backend, Input, Span};
use crate::error::Result;
use crate::memory::{Leased, MemoryPlan, PlanRequest, StreamStats, Tier};

/// The rows of one forward pass.
pub(crate) struct Batch<'a> {
    /// Token of each row.
    pub(crate) ids: &'a [u32],
    /// Position of each row in its sequence.
    pub(crate) positions: &'a [u32],
    /// Whose the rows are, in order.
    pub(crate) pieces: &'a [Piece<'a>],
    /// Where the keys and values of their sequences lie.
    pub(crate) pages: &'a PageTable,
    /// Rows whose logits are wanted, in order.
    pub(crate) output_rows: &'a [u32],
}

impl<'a> Batch<'a> {
    /// The rows of each piece.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span<'a>> {
        let pages = self.pages;
        self.pieces.iter().scan(0, move |next_row, piece| {
            let (first_row, n_rows) = (*next_row, piece.tokens.len());
            *next_row += n_rows;
            Some(Span { first_row, n_rows, start: piece.start, pages: pages.pages(piece.sequence) })
        })
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
    kv: Vec<B::KvLayer>,
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
    of_layer: Vec<usize>,
}

impl<B: Backend> Decoder<B> {
    /// Allocates everything that the plan lists but the weights.
    pub(crate) fn new(
        mut backend: B,
        config: ModelConfig,
        weights: Weights<B::Matrix, B::Buffer>,
        plan: &MemoryPlan,
        ram: &Tier,
    ) -> Result<Self> {
        let factors = weights.rope_factors.as_ref().map(|buffer| {
            let mut factors = vec![0.0; config.layers[0].attention.rope.n_rot / 2];
            backend.read(buffer, 0, &mut factors);
            factors
        });
        let PlanRequest { n_batch, n_ctx, kv_type, .. } = plan.request;
        let layers = layouts(&config, kv_type)?;
        // The cache first: it is the largest, and says so where there is no memory for it.
        let kv = layers.iter().map(|(_, layout)| backend.kv_layer(layout, plan.n_pages));
        let kv = kv.collect::<Result<_>>()?;
        backend.reserve_inputs(n_batch, config.max_input_width())?;
        backend.reserve_attention(&layers, n_ctx)?;
        Ok(Self {
            ropes: Ropes::new(&backend, &config, factors.as_deref(), n_batch)?,
            scratch: Scratch::new(&backend, &ScratchSizes::new(&config, n_batch)?)?,
            kv,
            routing: moe::Routing::new(&config, n_batch, ram)?,
            logits: ram.zeros(LOGITS_OF_A_ROW, config.n_vocab)?,
            announced: false,
            backend,
            config,
            weights,
        })
    }

    fn layer(&mut self, index: usize, batch: &Batch<'_>) -> Result<()> {
        let (config, weights) = (&self.config.layers[index], &self.weights.layers[index]);
        let (n_rows, eps) = (batch.ids.len(), self.config.norm_eps);
        let (backend, scratch) = (&mut self.backend, &mut self.scratch);
        let attention = Attention {
            config: &config.attention,
            weights: &weights.attention,
            residual: Residual {
                norm: &weights.attention_norm,
                post_norm: weights.post_attention_norm.as_ref(),
                eps,
                n_rows,
            },
            rope: &self.ropes.distinct[self.ropes.of_layer[index]],
            kv: &mut self.kv[index],
        };
        attention.forward(backend, batch, scratch)?;
        let residual =
            Residual { norm: &weights.ffn_norm, post_norm: weights.post_ffn_norm.as_ref(), eps, n_rows };
        ffn::forward(backend, &config.ffn, &weights.ffn, &residual, &mut self.routing, scratch)
    }

    /// Logits of the rows asked for, a few rows at a time.
    fn head(&mut self, output_rows: &[u32], sink: LogitSink<'_>) -> Result<()> {
        let ModelConfig { n_embd, n_vocab, norm_eps, logit_softcap, .. } = self.config;
        let (backend, weights) = (&mut self.backend, &self.weights);
        let Scratch { hidden, output_hidden, logits, .. } = &mut self.scratch;
        for (group, rows) in output_rows.chunks(MAX_LOGIT_ROWS).enumerate() {
            backend.gather_rows(hidden, rows, n_embd, output_hidden);
            let input = Input::RmsNorm { x: output_hidden, weight: &weights.output_norm, eps: norm_eps };
            backend.matmul(&input, rows.len(), &mut [weights.output.job(&mut *logits)])?;
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
        let n_heads = batch.output_rows.len().div_ceil(MAX_LOGIT_ROWS);
        let n_layers = self.config.layers.len();
        if !self.announced {
            announce_layers(&mut self.backend, &self.weights.layers);
            self.announced = true;
        }
        if !self.weights.layers.iter().any(has_experts) {
            self.announce(n_layers, n_heads);
        }
        for index in 0..n_layers {
            self.layer(index, batch)?;
            if has_experts(&self.weights.layers[index]) {
                self.announce(index + 1, n_heads);
            }
        }
        self.head(batch.output_rows, sink)
    }
}

/// Says of all layers up to the first with experts, and of that one up to its experts, that they will be used.
/// False if there is one.
fn announce_layers<B: Backend>(backend: &mut B, layers: &[LayerWeights<B::Matrix, B::Buffer>]) -> bool {
    for layer in layers {
        let AttentionWeights { query, key, value, output, .. } = &layer.attention;
        [query, key, value, output].into_iter().for_each(|linear| backend.will_use(&linear.matrix));
        match &layer.ffn {
            FfnWeights::Dense { gate, up, down } => {
                [gate, up, down].into_iter().for_each(|linear| backend.will_use(&linear.matrix));
            }
            FfnWeights::Experts(experts) => {
                backend.will_use(&experts.router);
                return false;
            }
        }
    }
    true
}

fn has_experts<M, V>(layer: &LayerWeights<M, V>) -> bool {
    matches!(layer.ffn, FfnWeights::Experts(_))
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
    fn new(backend: &B, config: &ModelConfig, factors: Option<&[f32]>, n_batch: usize) -> Result<Self> {
        let configs = config.distinct_ropes();
        let number = |rope| configs.iter().position(|known| *known == rope).expect("each is in the list");
        let of_layer = config.layers.iter().map(|layer| number(&layer.attention.rope)).collect();
        let distinct = configs.iter().map(|config| backend.rope(config, factors, n_batch));
        Ok(Self { distinct: distinct.collect::<Result<_>>()?, of_layer })
    }
}
