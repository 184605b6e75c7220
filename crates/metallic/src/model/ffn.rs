//! The feed-forward part of a layer.

use super::config::FfnConfig;
use super::moe;
use super::residual::Residual;
use super::scratch::Scratch;
use super::weights::FfnWeights;
use crate::backend::{Backend, Input};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &FfnWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    routing: &mut moe::Routing,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let (gate, up, down) = match weights {
        FfnWeights::Dense { gate, up, down } => (gate, up, down),
        FfnWeights::Experts(experts) => {
            return moe::forward(backend, config, experts, residual, routing, scratch);
        }
    };
    let Scratch { hidden, update, gate: inner, up: inner_up, .. } = scratch;
    let mut jobs = [gate.job(&mut *inner), up.job(&mut *inner_up)];
    backend.matmul(&residual.input(hidden), residual.n_rows, &mut jobs)?;
    let inner = Input::Gated { activation: config.activation, gate: inner, up: inner_up };
    residual.add_product(backend, &inner, down, hidden, update)
}
