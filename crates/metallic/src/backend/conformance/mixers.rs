//! Mixers that remember a state.

use super::computation::{Computation, buffer, optional, random, values};
use super::suite::{Bound, Suite};
use crate::backend::{
    Activation, Backend, CausalConv, DeltaNet, DeltaNetShape, KeyHeads, Mamba2, Mamba2Shape, Span,
};
use crate::error::Result;

/// Rows of a batch.
const N_ROWS: usize = 20;

/// First row, rows, position of the first and number of the sequence.
type Pieces = &'static [(usize, usize, usize, usize)];

/// Two sequences of which one goes on after the other began, and a span of no rows.
const IN_TURN: Pieces = &[(0, 7, 0, 1), (7, 1, 0, 0), (8, 0, 1, 0), (8, 2, 1, 0), (10, 10, 7, 1)];

/// Two sequences at once, and the same rows in pieces.
const AT_ONCE: Pieces = &[(0, 3, 0, 0), (3, 17, 0, 1)];
const IN_PIECES: Pieces =
    &[(0, 2, 0, 0), (3, 1, 0, 1), (4, 9, 1, 1), (2, 1, 2, 0), (13, 1, 10, 1), (14, 6, 11, 1)];

fn spans(pieces: Pieces) -> impl Iterator<Item = Span<'static>> {
    let span = |&(first_row, n_rows, start, slot): &_| Span {
        first_row,
        n_rows,
        start,
        pages: &[],
        slot,
        in_tiles: false,
    };
    pieces.iter().map(span)
}

/// Rates of decay.
fn negative(seed: u32, len: usize) -> Vec<f32> {
    random(seed, len).iter().map(|x| -x.abs() - 0.1).collect()
}

struct Convolution {
    n_taps: usize,
    n_channels: usize,
    has_bias: bool,
    pieces: Pieces,
}

impl Computation for Convolution {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { n_taps, n_channels, has_bias, pieces } = *self;
        let kernel = buffer(b, &random(31, n_channels * n_taps))?;
        let bias = optional(b, has_bias.then(|| random(32, n_channels)))?;
        let conv =
            CausalConv { kernel: &kernel, bias: bias.as_ref(), activation: Activation::Silu, n_channels };
        // What was before the beginning of a sequence is not to be seen.
        let n_kept = 2 * (n_taps - 1) * n_channels;
        let mut history = buffer(b, &random(33, n_kept + 1))?;
        let x = buffer(b, &random(34, N_ROWS * n_channels))?;
        let mut out = buffer(b, &random(35, N_ROWS * n_channels))?;
        for span in spans(pieces) {
            b.causal_conv(&conv, &mut history, &span, &x, &mut out);
        }
        let mut all = values(b, &out, N_ROWS * n_channels)?;
        all.extend(values(b, &history, n_kept + 1)?);
        Ok(all)
    }
}

struct StateSpace {
    shape: Mamba2Shape,
    pieces: Pieces,
}

impl Computation for StateSpace {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let shape = self.shape;
        let (n_head, inner) = (shape.n_head, shape.inner());
        let a = buffer(b, &negative(36, n_head))?;
        let (d, dt_bias) = (buffer(b, &random(37, n_head))?, buffer(b, &random(38, n_head))?);
        let mixer = Mamba2 { shape, a: &a, d: &d, dt_bias: &dt_bias };
        let n_states = 2 * inner * shape.d_state;
        let mut state = buffer(b, &random(39, n_states))?;
        let x = buffer(b, &random(40, N_ROWS * shape.n_channels()))?;
        // From what is next to nothing to what passes through.
        let steps: Vec<f32> = random(41, N_ROWS * n_head).iter().map(|x| 25.0 * x).collect();
        let dt = buffer(b, &steps)?;
        let (mut by_head, mut out) =
            (b.buffer("outputs", N_ROWS * inner)?, b.buffer("outputs", N_ROWS * inner)?);
        for span in spans(self.pieces) {
            b.mamba2(&mixer, &mut state, &span, &x, &dt, &mut by_head, &mut out);
        }
        let mut all = values(b, &out, N_ROWS * inner)?;
        all.extend(values(b, &state, n_states)?);
        Ok(all)
    }
}

struct DeltaRule {
    shape: DeltaNetShape,
    pieces: Pieces,
}

impl Computation for DeltaRule {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let shape = self.shape;
        let (n_head, inner) = (shape.n_value_head, shape.inner());
        let (a, dt_bias) = (buffer(b, &negative(42, n_head))?, buffer(b, &random(43, n_head))?);
        let net = DeltaNet { shape, a: &a, dt_bias: &dt_bias, eps: 1e-6 };
        let n_states = 2 * inner * shape.key_dim;
        let mut state = buffer(b, &random(44, n_states))?;
        let mut q_k_v = buffer(b, &random(45, N_ROWS * shape.n_channels()))?;
        let (beta, alpha) =
            (buffer(b, &random(46, N_ROWS * n_head))?, buffer(b, &random(47, N_ROWS * n_head))?);
        let (mut by_head, mut out) =
            (b.buffer("outputs", N_ROWS * inner)?, b.buffer("outputs", N_ROWS * inner)?);
        for span in spans(self.pieces) {
            b.delta_net(&net, &mut state, &span, &mut q_k_v, [&beta, &alpha], &mut by_head, &mut out);
        }
        let mut all = values(b, &out, N_ROWS * inner)?;
        all.extend(values(b, &state, n_states)?);
        Ok(all)
    }
}

/// As published, one head, and lengths that divide nothing.
const STATE_SPACES: [Mamba2Shape; 5] = [
    Mamba2Shape { n_head: 6, head_dim: 8, n_group: 2, d_state: 16 },
    Mamba2Shape { n_head: 3, head_dim: 13, n_group: 1, d_state: 23 },
    Mamba2Shape { n_head: 2, head_dim: 5, n_group: 2, d_state: 300 },
    Mamba2Shape { n_head: 1, head_dim: 64, n_group: 1, d_state: 128 },
    Mamba2Shape { n_head: 1, head_dim: 1, n_group: 1, d_state: 1 },
];

/// Heads of keys and of values, and their lengths.
const DELTA_RULES: [[usize; 4]; 5] =
    [[2, 6, 16, 16], [2, 4, 23, 13], [1, 1, 300, 5], [1, 2, 128, 128], [1, 1, 1, 1]];

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    let bound = Bound::Nmse(suite.bounds.floats);
    for (n_taps, n_channels, has_bias) in
        [(4, 70, true), (3, 70, false), (1, 33, true), (12, 257, false), (4, 4096, false), (2, 1, true)]
    {
        let what = format!("{n_channels} channels, {n_taps} taps");
        let of = |pieces| Convolution { n_taps, n_channels, has_bias, pieces };
        suite.compare("causal_conv", &what, bound.clone(), &of(IN_TURN));
        suite.same_bits("causal_conv", format!("{what}, in pieces"), [&of(AT_ONCE), &of(IN_PIECES)]);
    }
    for shape in STATE_SPACES {
        let Mamba2Shape { n_head, head_dim, n_group, d_state } = shape;
        let what = format!("{n_head} heads of {head_dim} in {n_group} groups, states of {d_state}");
        let of = |pieces| StateSpace { shape, pieces };
        suite.compare("mamba2", &what, bound.clone(), &of(IN_TURN));
        suite.same_bits("mamba2", format!("{what}, in pieces"), [&of(AT_ONCE), &of(IN_PIECES)]);
    }
    for [n_key_head, n_value_head, key_dim, value_dim] in DELTA_RULES {
        for key_heads in [KeyHeads::Adjacent, KeyHeads::InTurn] {
            let shape = DeltaNetShape { n_key_head, n_value_head, key_dim, value_dim, key_heads };
            let what = format!(
                "{n_value_head} heads of {value_dim}, {n_key_head} of keys of {key_dim}, {key_heads:?}"
            );
            let of = |pieces| DeltaRule { shape, pieces };
            suite.compare("delta_net", &what, bound.clone(), &of(IN_TURN));
            suite.same_bits("delta_net", format!("{what}, in pieces"), [&of(AT_ONCE), &of(IN_PIECES)]);
        }
    }
}
