//! Mixers that remember a state, as the kernels take them, and where their states and values are.

use metallic_kernels::pool::ThreadPool;
use metallic_kernels::recurrent;

use super::Cpu;
use super::rows::split_rows;
use crate::backend::{CausalConv, DeltaNet, Mamba2, Span};

pub(super) fn conv<'a>(conv: &CausalConv<'a, Cpu>) -> recurrent::CausalConv<'a> {
    let CausalConv { kernel, bias, activation, n_channels } = *conv;
    recurrent::CausalConv { kernel, bias: bias.map(|bias| &bias[..]), activation, n_channels }
}

pub(super) fn mamba2<'a>(mixer: &Mamba2<'a, Cpu>) -> recurrent::Mamba2<'a> {
    let Mamba2 { shape, a, d, dt_bias } = *mixer;
    let (head_dim, d_state, n_group) = (shape.head_dim, shape.d_state, shape.n_group);
    recurrent::Mamba2 { head_dim, d_state, n_group, a, d, dt_bias }
}

pub(super) fn delta_net<'a>(net: &DeltaNet<'a, Cpu>) -> recurrent::DeltaNet<'a> {
    let DeltaNet { shape, a, dt_bias, eps } = *net;
    recurrent::DeltaNet {
        n_key_head: shape.n_key_head,
        key_dim: shape.key_dim,
        value_dim: shape.value_dim,
        key_heads: shape.key_heads,
        a,
        dt_bias,
        eps,
    }
}

/// The state of a span's sequence, which begins with zeros.
pub(super) fn state_of<'a>(states: &'a mut [f32], span: &Span<'_>, len: usize) -> &'a mut [f32] {
    let state = &mut states[span.slot * len..][..len];
    if span.start == 0 {
        state.fill(0.0);
    }
    state
}

/// From `[n_head][n_rows][head_dim]` to `[n_rows][n_head][head_dim]`.
pub(super) fn rows_from_heads(
    pool: &ThreadPool,
    by_head: &[f32],
    head_dim: usize,
    n_rows: usize,
    out: &mut [f32],
) {
    split_rows(pool, out, by_head.len() / n_rows, &|row, out| {
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&by_head[(head * n_rows + row) * head_dim..][..head_dim]);
        }
    });
}
