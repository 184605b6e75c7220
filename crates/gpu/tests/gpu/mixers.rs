//! Mixers that remember a state, against the CPU's, in spans of several sequences.

use metallic::backend::{
    Activation, Backend, CausalConv, DeltaNet, DeltaNetShape, KeyHeads, Mamba2, Mamba2Shape, Span,
};

use crate::conformance::{Computation, MAX_NMSE, buffer, compare, random, values};
use crate::gpu;

/// Rows of a batch, and two sequences in it: one goes on after the other began.
const N_ROWS: usize = 20;
const SPANS: [(usize, usize, usize, usize); 4] = [(0, 7, 0, 1), (7, 1, 0, 0), (8, 2, 1, 0), (10, 10, 7, 1)];

/// The rows of the second sequence in one piece.
const AT_ONCE: [(usize, usize, usize, usize); 2] = [(0, 3, 0, 0), (3, 17, 0, 1)];

fn span(&(first_row, n_rows, start, slot): &(usize, usize, usize, usize)) -> Span<'static> {
    Span { first_row, n_rows, start, pages: &[], slot, in_tiles: false }
}

struct Convolution {
    n_taps: usize,
    bias: bool,
}

impl Computation for Convolution {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        const N: usize = 70;
        let kernel = buffer(b, &random(31, N * self.n_taps));
        let bias = self.bias.then(|| buffer(b, &random(32, N)));
        let conv =
            CausalConv { kernel: &kernel, bias: bias.as_ref(), activation: Activation::Silu, n_channels: N };
        // What was before the beginning of a sequence is not to be seen.
        let mut history = buffer(b, &random(33, 2 * (self.n_taps - 1) * N + 1));
        let (x, mut out) = (buffer(b, &random(34, N_ROWS * N)), buffer(b, &random(35, N_ROWS * N)));
        for piece in &SPANS {
            b.causal_conv(&conv, &mut history, &span(piece), &x, &mut out);
        }
        let mut all = values(b, &out, N_ROWS * N);
        all.extend(values(b, &history, 2 * (self.n_taps - 1) * N));
        all
    }
}

#[test]
fn convolutions_over_time() {
    for (n_taps, bias) in [(4, true), (3, false), (1, true), (12, false)] {
        let name = format!("a convolution over {n_taps}");
        compare(&name, MAX_NMSE, &Convolution { n_taps, bias });
    }
}

struct StateSpace {
    shape: Mamba2Shape,
    spans: &'static [(usize, usize, usize, usize)],
}

impl Computation for StateSpace {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        let shape = self.shape;
        let (n_head, inner) = (shape.n_head, shape.inner());
        let negative: Vec<f32> = random(36, n_head).iter().map(|x| -x.abs() - 0.1).collect();
        let [a, d, dt_bias] = [&negative[..], &random(37, n_head), &random(38, n_head)].map(|x| buffer(b, x));
        let mixer = Mamba2 { shape, a: &a, d: &d, dt_bias: &dt_bias };
        let mut state = buffer(b, &random(39, 2 * inner * shape.d_state));
        let x = buffer(b, &random(40, N_ROWS * shape.n_channels()));
        // From what is next to nothing to what passes through.
        let steps: Vec<f32> = random(41, N_ROWS * n_head).iter().map(|x| 25.0 * x).collect();
        let dt = buffer(b, &steps);
        let [mut by_head, mut out] = [(); 2].map(|()| b.buffer("outputs", N_ROWS * inner).unwrap());
        for piece in self.spans {
            b.mamba2(&mixer, &mut state, &span(piece), &x, &dt, &mut by_head, &mut out);
        }
        let mut all = values(b, &out, N_ROWS * inner);
        all.extend(values(b, &state, 2 * inner * shape.d_state));
        all
    }
}

const STATE_SPACES: [Mamba2Shape; 3] = [
    Mamba2Shape { n_head: 6, head_dim: 8, n_group: 2, d_state: 16 },
    Mamba2Shape { n_head: 3, head_dim: 13, n_group: 1, d_state: 23 },
    Mamba2Shape { n_head: 2, head_dim: 5, n_group: 2, d_state: 300 },
];

#[test]
fn state_spaces() {
    for shape in STATE_SPACES {
        compare(&format!("{shape:?}"), MAX_NMSE, &StateSpace { shape, spans: &SPANS });
    }
}

struct DeltaRule {
    shape: DeltaNetShape,
    spans: &'static [(usize, usize, usize, usize)],
}

impl Computation for DeltaRule {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        let shape = self.shape;
        let (n_head, inner) = (shape.n_value_head, shape.inner());
        let negative: Vec<f32> = random(42, n_head).iter().map(|x| -x.abs() - 0.1).collect();
        let [a, dt_bias] = [&negative[..], &random(43, n_head)].map(|x| buffer(b, x));
        let net = DeltaNet { shape, a: &a, dt_bias: &dt_bias, eps: 1e-6 };
        let n_states = 2 * inner * shape.key_dim;
        let mut state = buffer(b, &random(44, n_states));
        let mut q_k_v = buffer(b, &random(45, N_ROWS * shape.n_channels()));
        let [beta, alpha] = [46, 47].map(|seed| buffer(b, &random(seed, N_ROWS * n_head)));
        let [mut by_head, mut out] = [(); 2].map(|()| b.buffer("outputs", N_ROWS * inner).unwrap());
        for piece in self.spans {
            let rates = [&beta, &alpha];
            b.delta_net(&net, &mut state, &span(piece), &mut q_k_v, rates, &mut by_head, &mut out);
        }
        let mut all = values(b, &out, N_ROWS * inner);
        all.extend(values(b, &state, n_states));
        all
    }
}

const DELTA_RULES: [DeltaNetShape; 3] = [
    DeltaNetShape {
        n_key_head: 2,
        n_value_head: 6,
        key_dim: 16,
        value_dim: 16,
        key_heads: KeyHeads::Adjacent,
    },
    DeltaNetShape { n_key_head: 2, n_value_head: 4, key_dim: 23, value_dim: 13, key_heads: KeyHeads::InTurn },
    DeltaNetShape { n_key_head: 1, n_value_head: 1, key_dim: 300, value_dim: 5, key_heads: KeyHeads::InTurn },
];

#[test]
fn delta_rules() {
    for shape in DELTA_RULES {
        compare(&format!("{shape:?}"), MAX_NMSE, &DeltaRule { shape, spans: &SPANS });
    }
}

/// However the rows of a sequence are cut into spans.
#[test]
fn pieces_have_the_bits_of_the_whole() {
    const PIECES: [(usize, usize, usize, usize); 6] =
        [(0, 2, 0, 0), (3, 1, 0, 1), (4, 9, 1, 1), (2, 1, 2, 0), (13, 1, 10, 1), (14, 6, 11, 1)];
    let Some(mut gpu) = gpu() else { return };
    for shape in STATE_SPACES {
        let of = |spans| StateSpace { shape, spans };
        assert!(of(&PIECES).run(&mut gpu) == of(&AT_ONCE).run(&mut gpu), "{shape:?}");
    }
    for shape in DELTA_RULES {
        let of = |spans| DeltaRule { shape, spans };
        assert!(of(&PIECES).run(&mut gpu) == of(&AT_ONCE).run(&mut gpu), "{shape:?}");
    }
}
