//! Every buffer of a forward pass: named, sized from the model and the batch, allocated once.

use super::config::ModelConfig;
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
    query: "queries",
    key: "keys",
    value: "values",
    attended: "attention output",
    update: "what a part of a layer adds",
    gate: "feed-forward gate",
    up: "feed-forward inner layer",
    normed: "normed hidden state",
    router: "expert scores",
    expert_input: "rows sent to an expert",
    expert_output: "rows an expert returns",
    output_hidden: "hidden state of rows with logits",
    logits: "logits",
}

impl ScratchSizes {
    /// For batches of up to `n_batch` rows.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn new(config: &ModelConfig, n_batch: usize) -> Result<Self> {
        let largest = |width: fn(&super::config::LayerConfig) -> Option<usize>| {
            let widths = config.layers.iter().map(width);
            widths.reduce(|a, b| Some(a?.max(b?))).flatten().ok_or(Error::TooLarge { what: "an activation" })
        };
        let rows = |n: usize, width: usize| {
            n.checked_mul(width).ok_or(Error::TooLarge { what: "an activation buffer" })
        };
        let n_expert = config.max_experts();
        let hidden = rows(n_batch, config.n_embd)?;
        let n_outputs = n_batch.min(MAX_LOGIT_ROWS);
        let ffn = rows(n_batch, largest(|l| Some(l.ffn.n_ff))?)?;
        Ok(Self {
            hidden,
            query: rows(n_batch, largest(|l| l.attention.n_head.checked_mul(l.attention.key_length))?)?,
            key: rows(n_batch, largest(|l| l.attention.n_head_kv.checked_mul(l.attention.key_length))?)?,
            value: rows(n_batch, largest(|l| l.attention.n_head_kv.checked_mul(l.attention.value_length))?)?,
            attended: rows(n_batch, largest(|l| l.attention.n_head.checked_mul(l.attention.value_length))?)?,
            update: hidden,
            gate: ffn,
            up: ffn,
            normed: if n_expert.is_some() { hidden } else { 0 },
            router: rows(n_batch, n_expert.unwrap_or(0))?,
            expert_input: if n_expert.is_some() { hidden } else { 0 },
            expert_output: if n_expert.is_some() { hidden } else { 0 },
            output_hidden: rows(n_outputs, config.n_embd)?,
            logits: rows(n_outputs, config.n_vocab)?,
        })
    }
}
