//! The feed-forward part of a layer.

use super::config::FfnConfig;
use super::moe;
use super::scratch::Scratch;
use super::weights::FfnWeights;
use crate::backend::Backend;

/// From `scratch.normed` to `scratch.update`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &FfnWeights<B::Matrix, B::Buffer>,
    n_rows: usize,
    routing: &mut moe::Routing,
    scratch: &mut Scratch<B>,
) {
    let (gate, up, down) = match weights {
        FfnWeights::Dense { gate, up, down } => (gate, up, down),
        FfnWeights::Experts(experts) => {
            return moe::forward(backend, config, experts, n_rows, routing, scratch);
        }
    };
    let Scratch { normed, update, gate: inner, up: inner_up, .. } = scratch;
    backend.matmul(normed, n_rows, &mut [gate.job(&mut *inner), up.job(&mut *inner_up)]);
    backend.gate(config.activation, inner, inner_up, n_rows * config.n_ff);
    backend.matmul(inner, n_rows, &mut [down.job(update)]);
}
