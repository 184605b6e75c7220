//! A mixture of experts: each token is sent to the few experts that its router scores highest, and perhaps to one that
//! all go to.

use super::config::FfnConfig;
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::{ExpertWeights, SharedWeights};
use crate::backend::{Backend, Experts, Input, MatmulJob, Tokens};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &ExpertWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    batch: &Batch<'_>,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let Scratch { hidden, normed, update, gate, up, router, .. } = scratch;
    let (n_embd, n_rows, tokens) = (residual.width, residual.n_rows(), residual.tokens);

    let rows = residual.rows(backend, hidden, normed);
    match &weights.shared {
        Some(shared) => {
            run_shared(backend, config, shared, rows, tokens, (&mut *gate, &mut *up, &mut *update))?
        }
        None => backend.clear(update, n_rows * n_embd),
    }
    if let Some(shared_router) = weights.shared.as_ref().and_then(|shared| shared.router.as_ref()) {
        backend.matmul(&Input::Rows(rows), tokens, &mut [MatmulJob::new(shared_router, &mut *router)])?;
        backend.gate_rows(router, update, n_rows, n_embd);
    }
    backend.matmul(&Input::Rows(rows), tokens, &mut [weights.router.job(&mut *router)])?;
    let routing = weights.config.routing();
    let experts = Experts {
        routing,
        choice_bias: weights.choice_bias.as_ref(),
        activation: config.activation,
        gate: weights.gate.of_experts(),
        up: weights.up.of_experts(),
        down: weights.down.of_experts(),
    };
    let gemv = batch.n_gemv((routing.n_used, routing.n_expert));
    let tokens = Tokens { gemv, gemm: n_rows - gemv };
    backend.experts(&experts, router, rows, tokens, update)?;
    residual.add(backend, hidden, update);
    Ok(())
}

/// Writes what the shared expert makes of all rows to the last buffer; the others are for its inner layer.
fn run_shared<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &SharedWeights<B::Matrix, B::Buffer>,
    rows: &B::Buffer,
    tokens: Tokens,
    (gate, up, out): (&mut B::Buffer, &mut B::Buffer, &mut B::Buffer),
) -> Result<()> {
    let mut jobs = [weights.gate.job(&mut *gate), weights.up.job(&mut *up)];
    backend.matmul(&Input::Rows(rows), tokens, &mut jobs)?;
    let inner = Input::Gated { activation: config.activation, gate, up };
    backend.matmul(&inner, tokens, &mut [weights.down.job(out)])
}
