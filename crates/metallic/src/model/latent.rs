//! Multi-head latent attention over the vectors that keys and values are made of.

use super::config::LatentConfig;
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::{LatentQuery, LatentWeights};
use crate::backend::{AttentionParams, Backend, Columns, Input, MatmulJob};
use crate::error::Result;

/// The part of one layer: what it is, and what it remembers.
pub(super) struct Latent<'a, B: Backend> {
    pub(super) config: &'a LatentConfig,
    pub(super) weights: &'a LatentWeights<B::Matrix, B::Buffer>,
    pub(super) residual: Residual<'a, B>,
    pub(super) rope: Option<&'a B::Rope>,
    pub(super) kv: &'a mut B::KvLayer,
}

impl<B: Backend> Latent<'_, B> {
    /// Adds to `scratch.hidden`.
    pub(super) fn forward(self, backend: &mut B, batch: &Batch<'_>, scratch: &mut Scratch<B>) -> Result<()> {
        self.project(backend, scratch)?;
        self.absorb(backend, scratch)?;
        let Self { config, weights, residual, rope, kv } = self;
        let n_rows = residual.n_rows();
        let (attention, rank, value_length) = (&config.attention, config.rank(), config.value_length);
        let Scratch { hidden, query, key, value, attended, head_input, head_output, values, update, .. } =
            scratch;
        if let Some(rope) = rope {
            backend.rotate(rope, query, n_rows, attention.n_head, attention.key_length);
            backend.rotate(rope, key, n_rows, 1, attention.key_length);
        }
        if let Some(temperature) = attention.temperature {
            backend.warm(temperature, batch.positions, query, attention.n_head * attention.key_length);
        }
        let params = AttentionParams { shape: attention.shape(), sinks: None };
        for span in batch.spans() {
            backend.store_kv(kv, &span, key, value);
            backend.attention(&params, kv, &span, query, attended);
        }
        for (head, matrix) in weights.value_up.iter().enumerate() {
            let from = Columns { first: head * rank, stride: attention.n_head * rank };
            backend.copy_columns(attended, from, head_input, Columns::all(rank), rank, n_rows);
            backend.matmul(
                &Input::Rows(head_input),
                residual.tokens,
                &mut [MatmulJob::new(matrix, &mut *head_output)],
            )?;
            let to = Columns { first: head * value_length, stride: attention.n_head * value_length };
            backend.copy_columns(head_output, Columns::all(value_length), values, to, value_length, n_rows);
        }
        residual.add_product(backend, &Input::Rows(values), &weights.output, hidden, update)
    }

    /// Makes queries as they are before they meet the vectors, the vectors, and keys and values of them.
    fn project(&self, backend: &mut B, scratch: &mut Scratch<B>) -> Result<()> {
        let Self { config, weights, residual, .. } = self;
        let (n_rows, rank, n_rot) = (residual.n_rows(), config.rank(), config.rope_length());
        let Scratch { hidden, normed, raw_query, compressed_query, compressed, key, value, .. } = scratch;
        let input = residual.input(hidden, normed);
        let first = match &weights.query {
            LatentQuery::Whole(query) => query.job(&mut *raw_query),
            LatentQuery::Compressed { down, .. } => down.job(&mut *compressed_query),
        };
        backend.matmul(&input, residual.tokens, &mut [first, weights.down.job(&mut *compressed)])?;
        if let LatentQuery::Compressed { norm, up, .. } = &weights.query {
            let input = Input::Norm { x: compressed_query, norm: norm.as_norm() };
            backend.matmul(&input, residual.tokens, &mut [up.job(&mut *raw_query)])?;
        }
        // Files have the vector first, and then what is rotated.
        let all = Columns { first: 0, stride: rank + n_rot };
        backend.copy_columns(compressed, all, value, Columns::all(rank), rank, n_rows);
        backend.norm_in_place(&weights.norm.as_norm(), value, n_rows, 1);
        backend.copy_columns(compressed, Columns { first: rank, ..all }, key, all, n_rot, n_rows);
        backend.copy_columns(value, Columns::all(rank), key, Columns { first: n_rot, ..all }, rank, n_rows);
        Ok(())
    }

    /// Makes of each query one that meets the vector instead of a key made of it.
    fn absorb(&self, backend: &mut B, scratch: &mut Scratch<B>) -> Result<()> {
        let Self { config, weights, residual, .. } = self;
        let (n_rows, rank, n_rot) = (residual.n_rows(), config.rank(), config.rope_length());
        let (n_head, nope, key_length) =
            (config.attention.n_head, config.nope_length, config.attention.key_length);
        let Scratch { raw_query, query, head_input, head_output, .. } = scratch;
        let from = Columns { first: nope, stride: nope + n_rot };
        let to = Columns { first: 0, stride: key_length };
        backend.copy_columns(raw_query, from, query, to, n_rot, n_rows * n_head);
        for (head, matrix) in weights.key_up.iter().enumerate() {
            let from = Columns { first: head * (nope + n_rot), stride: n_head * (nope + n_rot) };
            backend.copy_columns(raw_query, from, head_input, Columns::all(nope), nope, n_rows);
            backend.matmul(
                &Input::Rows(head_input),
                residual.tokens,
                &mut [MatmulJob::new(matrix, &mut *head_output)],
            )?;
            let to = Columns { first: head * key_length + n_rot, stride: n_head * key_length };
            backend.copy_columns(head_output, Columns::all(rank), query, to, rank, n_rows);
        }
        Ok(())
    }
}
