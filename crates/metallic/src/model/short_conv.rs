//! A gated convolution over the last few positions: `C · conv(B · x)`, where `B`, `C` and `x` are projected together.

use super::cache::States;
use super::config::{Activation, ShortConvConfig};
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::ShortConvWeights;
use crate::backend::{Backend, CausalConv, Columns, Input};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &ShortConvConfig,
    weights: &ShortConvWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    states: &mut States<B::Buffer>,
    batch: &Batch<'_>,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let (n_rows, n) = (residual.n_rows(), config.n_channels);
    let Scratch { hidden, normed, projected, conv_input, state_gate, convolved, update, .. } = scratch;
    backend.matmul(
        &residual.input(hidden, normed),
        residual.tokens,
        &mut [weights.input.job(&mut *projected)],
    )?;
    let part = |i: usize| Columns { first: i * n, stride: 3 * n };
    backend.copy_columns(projected, part(0), state_gate, Columns::all(n), n, n_rows);
    backend.copy_columns(projected, part(2), conv_input, Columns::all(n), n, n_rows);
    backend.gate(Activation::Identity, state_gate, conv_input, n_rows * n);
    let conv =
        CausalConv { kernel: &weights.kernel, bias: None, activation: Activation::Identity, n_channels: n };
    for span in batch.spans() {
        backend.causal_conv(&conv, &mut states.history, &span, conv_input, convolved);
    }
    backend.copy_columns(projected, part(1), state_gate, Columns::all(n), n, n_rows);
    let gated = Input::Gated { activation: Activation::Identity, gate: state_gate, up: convolved };
    residual.add_product(backend, &gated, &weights.output, hidden, update)
}
