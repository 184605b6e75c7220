//! Every buffer of a forward pass: named, sized from the model and the batch, allocated once.

use super::config::{AttentionConfig, DeltaNetConfig, Mamba2Config, MixerConfig, ModelConfig, Wiring};
use super::part::Parts;
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Rows of logits computed at a time: bounds their buffer whatever the batch asks for.
pub(crate) const MAX_LOGIT_ROWS: usize = 16;

/// What the buffer is for in which logits leave the backend.
pub(crate) const LOGITS_OF_A_ROW: &str = "logits of a row";

macro_rules! scratch {
    ($($name:ident: $what:literal,)*) => {
        /// Lengths of the scratch buffers, in values.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct ScratchSizes {
            $(pub(crate) $name: usize,)*
        }

        impl ScratchSizes {
            /// What each buffer is for, and its length.
            pub(crate) fn lines(&self) -> impl Iterator<Item = (&'static str, usize)> {
                [$(($what, self.$name),)*].into_iter().filter(|(_, len)| *len > 0)
            }
        }

        /// The scratch buffers of one decoder.
        pub(crate) struct Scratch<B: Backend> {
            $(pub(crate) $name: B::Buffer,)*
        }

        impl<B: Backend> Scratch<B> {
            pub(crate) fn new(backend: &B, sizes: &ScratchSizes) -> Result<Self> {
                Ok(Self { $($name: backend.buffer($what, sizes.$name)?,)* })
            }
        }
    };
}

scratch! {
    hidden: "hidden state",
    normed: "normed hidden state",
    raw_query: "queries as projected",
    compressed_query: "compressed queries",
    query: "queries",
    query_gate: "gates of attention's output",
    compressed: "compressed keys and values",
    key: "keys",
    value: "values",
    attended: "attention output",
    head_input: "input of a head's matrix",
    head_output: "output of a head's matrix",
    values: "attention output of all heads",
    projected: "inputs of a mixer as projected",
    conv_input: "input of a convolution",
    convolved: "output of a convolution",
    state_gate: "gates of a mixer",
    raw_rates: "rates of a state as projected",
    shares: "shares of new values in a state",
    rates: "rates of a state",
    by_head: "output of a state, head by head",
    mixed: "output of a state",
    update: "what a part of a layer adds",
    gate: "feed-forward gate",
    up: "feed-forward inner layer",
    router: "expert scores",
    output_hidden: "hidden state of rows with logits",
    logits: "logits",
}

/// Values of a row in the buffers of a mixer.
#[derive(Default)]
struct MixerWidths {
    raw_query: usize,
    compressed_query: usize,
    query: usize,
    query_gate: usize,
    compressed: usize,
    key: usize,
    value: usize,
    attended: usize,
    head: usize,
    values: usize,
    projected: usize,
    conv: usize,
    rates: usize,
    state: usize,
}

impl MixerWidths {
    /// Of lengths that were checked: each is far below the square root of what can be addressed.
    fn new(mixer: &MixerConfig) -> Self {
        let attention = mixer.attention().map(Self::attention).unwrap_or_default();
        match mixer {
            MixerConfig::Attention(_) => attention,
            MixerConfig::Latent(config) => Self {
                raw_query: config.attention.n_head * (config.nope_length + config.rope_length()),
                compressed_query: config.query_rank.unwrap_or(0),
                compressed: config.attention.key_length,
                head: config.nope_length.max(config.rank()).max(config.value_length),
                values: config.attention.n_head * config.value_length,
                ..attention
            },
            MixerConfig::ShortConv(config) => Self {
                projected: 3 * config.n_channels,
                conv: config.n_channels,
                state: config.n_channels,
                ..attention
            },
            MixerConfig::Mamba2(Mamba2Config { shape, .. }) => Self {
                projected: shape.inner() + shape.n_channels() + shape.n_head,
                conv: shape.n_channels(),
                rates: shape.n_head,
                state: shape.inner(),
                ..attention
            },
            MixerConfig::DeltaNet(DeltaNetConfig { shape, .. }) => Self {
                projected: shape.n_channels() + shape.inner(),
                conv: shape.n_channels(),
                rates: shape.n_value_head,
                state: shape.inner(),
                ..attention
            },
        }
    }

    fn attention(config: &AttentionConfig) -> Self {
        let AttentionConfig { n_head, n_head_kv, key_length, value_length, .. } = *config;
        let gate = if config.output_gate { n_head * key_length } else { 0 };
        Self {
            raw_query: 2 * gate,
            query: n_head * key_length,
            query_gate: gate,
            key: n_head_kv * key_length,
            value: n_head_kv * value_length,
            attended: n_head * value_length,
            ..Self::default()
        }
    }
}

impl ScratchSizes {
    /// For batches of up to `n_batch` rows in some of the parts.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn new(config: &ModelConfig, parts: &Parts, n_batch: usize) -> Result<Self> {
        let rows = |n: usize, width: usize| {
            n.checked_mul(width).ok_or(Error::TooLarge { what: "an activation buffer" })
        };
        let mixers: Vec<MixerWidths> = config.mixers(parts).map(MixerWidths::new).collect();
        let mixer =
            |width: fn(&MixerWidths) -> usize| rows(n_batch, mixers.iter().map(width).max().unwrap_or(0));
        let ffns = || config.networks(parts);
        let experts = || ffns().filter_map(|ffn| ffn.experts.as_ref());
        let n_expert = config.expert_needs(parts).map(|needs| needs.n_expert);
        let n_shared = experts().filter_map(|experts| experts.shared).map(|shared| shared.n_ff).max();
        let dense = ffns().filter(|ffn| ffn.experts.is_none()).map(|ffn| ffn.n_ff);
        let n_ff = dense.max().max(n_shared).unwrap_or(0);
        let parallel = config.layers.iter().any(|layer| matches!(layer.wiring, Wiring::Parallel { .. }));

        let hidden = if parts.is_empty() { 0 } else { rows(n_batch, config.n_embd)? };
        let of_experts = if n_expert.is_some() { hidden } else { 0 };
        let n_outputs = if parts.has_head() { n_batch.min(MAX_LOGIT_ROWS) } else { 0 };
        let ffn = rows(n_batch, n_ff)?;
        Ok(Self {
            hidden,
            normed: if parallel { hidden } else { of_experts },
            raw_query: mixer(|m| m.raw_query)?,
            compressed_query: mixer(|m| m.compressed_query)?,
            query: mixer(|m| m.query)?,
            query_gate: mixer(|m| m.query_gate)?,
            compressed: mixer(|m| m.compressed)?,
            key: mixer(|m| m.key)?,
            value: mixer(|m| m.value)?,
            attended: mixer(|m| m.attended)?,
            head_input: mixer(|m| m.head)?,
            head_output: mixer(|m| m.head)?,
            values: mixer(|m| m.values)?,
            projected: mixer(|m| m.projected)?,
            conv_input: mixer(|m| m.conv)?,
            convolved: mixer(|m| m.conv)?,
            state_gate: mixer(|m| m.state)?,
            raw_rates: mixer(|m| 2 * m.rates)?,
            shares: mixer(|m| m.rates)?,
            rates: mixer(|m| m.rates)?,
            by_head: mixer(|m| m.state)?,
            mixed: mixer(|m| m.state)?,
            update: hidden,
            gate: ffn,
            up: ffn,
            router: rows(n_batch, n_expert.unwrap_or(0))?,
            output_hidden: rows(n_outputs, config.n_embd)?,
            logits: rows(n_outputs, config.n_vocab)?,
        })
    }
}
