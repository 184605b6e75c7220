//! Mamba-2: a convolution, then a state space, gated and normed.

use super::cache::States;
use super::config::{Activation, Mamba2Config};
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::Mamba2Weights;
use crate::backend::{Backend, CausalConv, Columns, Input, Mamba2};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &Mamba2Config,
    weights: &Mamba2Weights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    States { history, state }: &mut States<B::Buffer>,
    batch: &Batch<'_>,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let shape = config.shape;
    let (n_rows, inner, n_channels) = (residual.n_rows(), shape.inner(), shape.n_channels());
    let Scratch {
        hidden,
        normed,
        projected,
        state_gate,
        conv_input,
        convolved,
        rates,
        by_head,
        mixed,
        update,
        ..
    } = scratch;
    backend.matmul(
        &residual.input(hidden, normed),
        residual.tokens,
        &mut [weights.input.job(&mut *projected)],
    )?;
    // A gate, what is convolved, and steps of time.
    let stride = inner + n_channels + shape.n_head;
    for (first, out, len) in [
        (0, &mut *state_gate, inner),
        (inner, &mut *conv_input, n_channels),
        (inner + n_channels, &mut *rates, shape.n_head),
    ] {
        backend.copy_columns(projected, Columns { first, stride }, out, Columns::all(len), len, n_rows);
    }
    let conv = CausalConv {
        kernel: &weights.kernel,
        bias: weights.kernel_bias.as_ref(),
        activation: Activation::Silu,
        n_channels,
    };
    let mixer = Mamba2 { shape, a: &weights.a, d: &weights.d, dt_bias: &weights.dt_bias };
    for span in batch.spans() {
        backend.causal_conv(&conv, history, &span, conv_input, convolved);
        backend.mamba2(&mixer, state, &span, convolved, rates, by_head, mixed);
    }
    backend.gate(Activation::Silu, state_gate, mixed, n_rows * inner);
    backend.norm_in_place(&weights.norm.as_norm(), mixed, n_rows, shape.n_group);
    residual.add_product(backend, &Input::Rows(mixed), &weights.output, hidden, update)
}
