//! A gated delta net: queries, keys and values go through a convolution and the delta rule, and are normed and gated.

use super::cache::States;
use super::config::Activation;
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::{DeltaNetInput, DeltaNetRates, DeltaNetWeights};
use crate::backend::{Backend, CausalConv, Columns, DeltaNet, DeltaNetShape, Input};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    shape: DeltaNetShape,
    weights: &DeltaNetWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    States { history, state }: &mut States<B::Buffer>,
    batch: &Batch<'_>,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    project(backend, shape, weights, residual, scratch)?;
    let Scratch { hidden, conv_input, convolved, shares, rates, by_head, mixed, state_gate, update, .. } =
        scratch;
    let n_channels = shape.n_channels();
    let conv = CausalConv { kernel: &weights.kernel, bias: None, activation: Activation::Silu, n_channels };
    let net = DeltaNet { shape, a: &weights.a, dt_bias: &weights.dt_bias, eps: weights.norm.eps };
    for span in batch.spans() {
        backend.causal_conv(&conv, history, &span, conv_input, convolved);
        backend.delta_net(&net, state, &span, convolved, [&*shares, &*rates], by_head, mixed);
    }
    backend.norm_in_place(&weights.norm.as_norm(), mixed, residual.n_rows() * shape.n_value_head, 1);
    let gated = Input::Gated { activation: Activation::Silu, gate: state_gate, up: mixed };
    residual.add_product(backend, &gated, &weights.output, hidden, update)
}

/// Makes what is convolved, the output's gate, and the two rates of each head.
fn project<B: Backend>(
    backend: &mut B,
    shape: DeltaNetShape,
    weights: &DeltaNetWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let n_rows = residual.n_rows();
    let Scratch { hidden, normed, projected, raw_rates, conv_input, state_gate, shares, rates, .. } = scratch;
    let input = residual.input(hidden, normed);
    match &weights.input {
        DeltaNetInput::Split { conv, gate } => {
            backend.matmul(
                &input,
                residual.tokens,
                &mut [conv.job(&mut *conv_input), gate.job(&mut *state_gate)],
            )?;
        }
        DeltaNetInput::ByKeyHead(all) => {
            backend.matmul(&input, residual.tokens, &mut [all.job(&mut *projected)])?;
            part_by_key_head(backend, shape, n_rows, projected, conv_input, state_gate);
        }
    }
    match &weights.rates {
        DeltaNetRates::Split { beta, alpha } => {
            backend.matmul(&input, residual.tokens, &mut [beta.job(&mut *shares), alpha.job(&mut *rates)])
        }
        DeltaNetRates::ByKeyHead(both) => {
            backend.matmul(&input, residual.tokens, &mut [both.job(&mut *raw_rates)])?;
            // Of each key head, the betas of its value heads and then their alphas.
            let n = shape.n_value_head / shape.n_key_head;
            for (first, out) in [(0, &mut *shares), (n, &mut *rates)] {
                let from = Columns { first, stride: 2 * n };
                backend.copy_columns(raw_rates, from, out, Columns::all(n), n, n_rows * shape.n_key_head);
            }
            Ok(())
        }
    }
}

/// Sorts rows that have, for each key head, its query, key, values and gates.
fn part_by_key_head<B: Backend>(
    backend: &mut B,
    shape: DeltaNetShape,
    n_rows: usize,
    rows: &B::Buffer,
    conv_input: &mut B::Buffer,
    gate: &mut B::Buffer,
) {
    let (n, key_dim) = (shape.n_key_head, shape.key_dim);
    let values = shape.inner() / n;
    let head_len = 2 * (key_dim + values);
    for head in 0..n {
        let from = |first: usize| Columns { first: head * head_len + first, stride: n * head_len };
        let to = |first: usize| Columns { first, stride: shape.n_channels() };
        backend.copy_columns(rows, from(0), conv_input, to(head * key_dim), key_dim, n_rows);
        backend.copy_columns(rows, from(key_dim), conv_input, to((n + head) * key_dim), key_dim, n_rows);
        let value = to(2 * n * key_dim + head * values);
        backend.copy_columns(rows, from(2 * key_dim), conv_input, value, values, n_rows);
        let to = Columns { first: head * values, stride: n * values };
        backend.copy_columns(rows, from(2 * key_dim + values), gate, to, values, n_rows);
    }
}
