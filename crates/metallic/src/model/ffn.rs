//! The feed-forward part of a layer.

use super::config::FfnConfig;
use super::moe;
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::{DenseWeights, FfnWeights};
use crate::backend::{Backend, Input};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &FfnWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    batch: &Batch<'_>,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let DenseWeights { gate, up, divisors, down } = match weights {
        FfnWeights::Dense(weights) => weights,
        FfnWeights::Experts(experts) => {
            return moe::forward(backend, config, experts, residual, batch, scratch);
        }
    };
    let Scratch { hidden, normed, update, gate: inner, up: inner_up, .. } = scratch;
    let input = residual.input(hidden, normed);
    let inner = if let Some(gate) = gate {
        let mut jobs = [gate.job(&mut *inner), up.job(&mut *inner_up)];
        backend.matmul(&input, residual.tokens, &mut jobs)?;
        Input::Gated { activation: config.activation, gate: inner, up: inner_up }
    } else {
        backend.matmul(&input, residual.tokens, &mut [up.job(&mut *inner_up)])?;
        backend.activate(config.activation, inner_up, residual.n_rows() * config.n_ff);
        if let Some(divisors) = divisors {
            backend.divide_rows(inner_up, residual.n_rows(), divisors);
        }
        Input::Rows(inner_up)
    };
    residual.add_product(backend, &inner, down, hidden, update)
}
