//! The attention part of a layer.

use super::config::AttentionConfig;
use super::decoder::Batch;
use super::residual::Residual;
use super::scratch::Scratch;
use super::weights::AttentionWeights;
use crate::backend::{Backend, Input};
use crate::error::Result;

/// The attention part of one layer: what it is, and what it remembers.
pub(super) struct Attention<'a, B: Backend> {
    pub(super) config: &'a AttentionConfig,
    pub(super) weights: &'a AttentionWeights<B::Matrix, B::Buffer>,
    pub(super) residual: Residual<'a, B>,
    pub(super) rope: &'a B::Rope,
    pub(super) kv: &'a mut B::KvLayer,
}

impl<B: Backend> Attention<'_, B> {
    /// Adds to `scratch.hidden`.
    pub(super) fn forward(self, backend: &mut B, batch: &Batch<'_>, scratch: &mut Scratch<B>) -> Result<()> {
        let Self { config, weights, residual, rope, kv } = self;
        let (n_rows, norm_eps) = (residual.n_rows, residual.eps);
        let AttentionConfig { n_head, n_head_kv, key_length, .. } = *config;
        let Scratch { hidden, query, key, value, attended, update, .. } = scratch;

        let mut projections =
            [weights.query.job::<B>(&mut *query), weights.key.job(&mut *key), weights.value.job(&mut *value)];
        backend.matmul(&residual.input(hidden), n_rows, &mut projections)?;

        if let Some(norm) = &weights.query_norm {
            backend.rms_norm_in_place(query, n_rows * n_head, norm, norm_eps);
        }
        if let Some(norm) = &weights.key_norm {
            backend.rms_norm_in_place(key, n_rows * n_head_kv, norm, norm_eps);
        }
        backend.rotate(rope, query, n_rows, n_head, key_length);
        backend.rotate(rope, key, n_rows, n_head_kv, key_length);

        for span in batch.spans() {
            backend.store_kv(kv, &span, key, value);
            backend.attention(config, kv, &span, query, attended);
        }
        residual.add_product(backend, &Input::Rows(attended), &weights.output, hidden, update)
    }
}
