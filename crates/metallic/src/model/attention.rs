//! Attention over the keys and values of all positions.

use super::config::{Activation, AttentionConfig, QkNorm};
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::{AttentionWeights, NormWeights};
use crate::backend::{AttentionParams, Backend, Columns, Input};
use crate::error::Result;

/// The attention part of one layer: what it is, and what it remembers.
pub(super) struct Attention<'a, B: Backend> {
    pub(super) config: &'a AttentionConfig,
    pub(super) weights: &'a AttentionWeights<B::Matrix, B::Buffer>,
    pub(super) residual: Residual<'a, B>,
    pub(super) rope: Option<&'a B::Rope>,
    pub(super) kv: &'a mut B::KvLayer,
}

impl<B: Backend> Attention<'_, B> {
    /// Adds to `scratch.hidden`.
    pub(super) fn forward(self, backend: &mut B, batch: &Batch<'_>, scratch: &mut Scratch<B>) -> Result<()> {
        let Self { config, weights, residual, rope, kv } = self;
        let n_rows = residual.n_rows();
        let AttentionConfig { n_head, n_head_kv, key_length, value_length, .. } = *config;
        let Scratch { hidden, normed, query, query_gate, raw_query, key, value, attended, update, .. } =
            scratch;

        let first_query = if config.output_gate { &mut *raw_query } else { &mut *query };
        let mut projections =
            [weights.query.job::<B>(first_query), weights.key.job(&mut *key), weights.value.job(&mut *value)];
        backend.matmul(&residual.input(hidden, normed), residual.tokens, &mut projections)?;
        if config.output_gate {
            // The queries of each head are followed by its gate.
            let n_heads = n_rows * n_head;
            for (first, out) in [(0, &mut *query), (key_length, &mut *query_gate)] {
                let from = Columns { first, stride: 2 * key_length };
                backend.copy_columns(raw_query, from, out, Columns::all(key_length), key_length, n_heads);
            }
        }
        if let Some(limit) = config.clamp {
            backend.clamp(query, limit, n_rows * n_head * key_length);
            backend.clamp(key, limit, n_rows * n_head_kv * key_length);
            backend.clamp(value, limit, n_rows * n_head_kv * value_length);
        }
        for (norm, x, n_heads) in
            [(&weights.query_norm, &mut *query, n_head), (&weights.key_norm, &mut *key, n_head_kv)]
        {
            if let (Some(norm), Some(qk_norm)) = (norm, config.qk_norm) {
                norm_heads(backend, norm, qk_norm, x, n_rows, n_heads);
            }
        }
        if let Some(rope) = rope {
            backend.rotate(rope, query, n_rows, n_head, key_length);
            backend.rotate(rope, key, n_rows, n_head_kv, key_length);
        }
        if let Some(temperature) = config.temperature {
            backend.warm(temperature, batch.positions, query, n_head * key_length);
        }

        let params = AttentionParams { shape: config.shape(), sinks: weights.sinks.as_ref() };
        for span in batch.spans() {
            backend.store_kv(kv, &span, key, value);
            backend.attention(&params, kv, &span, query, attended);
        }
        let input = if config.output_gate {
            Input::Gated { activation: Activation::Sigmoid, gate: query_gate, up: attended }
        } else {
            Input::Rows(attended)
        };
        residual.add_product(backend, &input, &weights.output, hidden, update)
    }
}

fn norm_heads<B: Backend>(
    backend: &mut B,
    norm: &NormWeights<B::Buffer>,
    qk_norm: QkNorm,
    x: &mut B::Buffer,
    n_rows: usize,
    n_heads: usize,
) {
    let (n_rows, n_parts) = match qk_norm {
        QkNorm::EachHead => (n_rows * n_heads, 1),
        QkNorm::EachHeadOwn => (n_rows, n_heads),
        QkNorm::AllHeads => (n_rows, 1),
    };
    backend.norm_in_place(&norm.as_norm(), x, n_rows, n_parts);
}
