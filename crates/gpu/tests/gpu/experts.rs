//! Mixtures of experts, against the CPU's.

use metallic::GgmlType;
use metallic::backend::{
    Activation, Backend, ExpertGroups, ExpertMatrix, ExpertNeeds, Experts, RoutingShape, Scoring, Tokens,
};
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};

use crate::conformance::{Computation, MAX_NMSE, buffer, compare, random, values};
use crate::gpu;

const N_EMBD: usize = 20;
const N_FF: usize = 13;

struct Mixture {
    routing: RoutingShape,
    n_rows: usize,
    choice_bias: bool,
    biases: bool,
    /// Whether the gate and up of an expert follow each other in one matrix.
    merged: bool,
    activation: Activation,
}

const PLAIN: Mixture = Mixture {
    routing: RoutingShape {
        n_expert: 8,
        n_used: 2,
        scoring: Scoring::Softmax,
        normalize: true,
        scale: 1.0,
        groups: None,
    },
    n_rows: 9,
    choice_bias: false,
    biases: false,
    merged: false,
    activation: Activation::Silu,
};

fn matrix<B: Backend>(b: &mut B, seed: u32, row_len: usize, n_rows: usize) -> B::Matrix {
    let weights: Vec<u8> = random(seed, row_len * n_rows).iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = MatrixBytes::in_memory(SharedBytes::new(weights));
    b.matrix(MatrixData { ggml_type: GgmlType::F32, row_len, n_rows, bytes }).unwrap()
}

impl Mixture {
    /// What the experts make of rows, added to what was there.
    fn run_rows<B: Backend>(&self, b: &mut B, rows: std::ops::Range<usize>) -> Vec<f32> {
        let (routing, n_rows) = (self.routing, rows.len());
        let RoutingShape { n_expert, n_used, .. } = routing;
        let needs = ExpertNeeds { n_expert, n_used: n_used + 1, n_embd: N_EMBD, n_ff: N_FF + 1 };
        b.reserve_experts(n_rows, &needs).unwrap();
        b.reserve_inputs(n_rows, N_EMBD).unwrap();
        // Steps between scores, so that many are the same.
        let scores = random(51, self.n_rows * n_expert);
        let scores: Vec<f32> = scores.iter().map(|x| (8.0 * x).round() / 4.0).collect();
        let mut scores = buffer(b, &scores[rows.start * n_expert..rows.end * n_expert]);
        let x = buffer(b, &random(52, self.n_rows * N_EMBD)[rows.start * N_EMBD..rows.end * N_EMBD]);
        let mut out = buffer(b, &random(53, self.n_rows * N_EMBD)[rows.start * N_EMBD..rows.end * N_EMBD]);
        let choice_bias = self.choice_bias.then(|| buffer(b, &random(54, n_expert)));
        let gate_up = matrix(b, 55, N_EMBD, 2 * n_expert * N_FF);
        let down = matrix(b, 56, N_FF, n_expert * N_EMBD);
        let [gate_bias, up_bias, down_bias] = [(57, N_FF), (58, N_FF), (59, N_EMBD)]
            .map(|(seed, len)| self.biases.then(|| buffer(b, &random(seed, n_expert * len))));
        let (stride, first_up) = if self.merged { (2 * N_FF, N_FF) } else { (N_FF, n_expert * N_FF) };
        let inner = |first, bias| ExpertMatrix { all: &gate_up, first, stride, n_rows: N_FF, bias };
        let experts = Experts {
            routing,
            choice_bias: choice_bias.as_ref(),
            activation: self.activation,
            gate: inner(0, gate_bias.as_ref()),
            up: inner(first_up, up_bias.as_ref()),
            down: ExpertMatrix {
                all: &down,
                first: 0,
                stride: N_EMBD,
                n_rows: N_EMBD,
                bias: down_bias.as_ref(),
            },
        };
        let tokens = Tokens { gemv: n_rows, gemm: 0 };
        b.experts(&experts, &mut scores, &x, tokens, &mut out).unwrap();
        values(b, &out, n_rows * N_EMBD)
    }
}

impl Computation for Mixture {
    fn run<B: Backend>(&self, b: &mut B) -> Vec<f32> {
        self.run_rows(b, 0..self.n_rows)
    }
}

#[test]
fn mixtures_of_every_kind() {
    let plain = PLAIN.routing;
    let sigmoid = RoutingShape { scoring: Scoring::Sigmoid, ..plain };
    let groups = |n_group, n_used| Some(ExpertGroups { n_group, n_used });
    let many = RoutingShape { n_expert: 512, n_used: 32, groups: groups(8, 3), ..sigmoid };
    let odd = RoutingShape { n_expert: 66, n_used: 7, groups: groups(11, 4), normalize: false, ..plain };
    let of_used = RoutingShape { scoring: Scoring::SoftmaxOfUsed, normalize: false, scale: 1.7, ..plain };
    for (name, mixture) in [
        ("a mixture", PLAIN),
        ("with shares as they are", Mixture { routing: RoutingShape { normalize: false, ..plain }, ..PLAIN }),
        (
            "by sigmoids, scaled",
            Mixture { routing: RoutingShape { scale: 2.5, ..sigmoid }, merged: true, ..PLAIN },
        ),
        ("with a biased choice", Mixture { routing: sigmoid, choice_bias: true, ..PLAIN }),
        ("of those used, with biases", Mixture { routing: of_used, biases: true, ..PLAIN }),
        (
            "all of them, clamped",
            Mixture {
                routing: RoutingShape { n_used: 8, ..of_used },
                biases: true,
                activation: Activation::ClampedSwish,
                ..PLAIN
            },
        ),
        ("of groups", Mixture { routing: odd, merged: true, ..PLAIN }),
        ("of many in groups", Mixture { routing: many, ..PLAIN }),
        ("of many in groups, biased", Mixture { routing: many, choice_bias: true, ..PLAIN }),
        (
            "of one in each group, biased",
            Mixture { routing: RoutingShape { groups: groups(8, 4), ..sigmoid }, choice_bias: true, ..PLAIN },
        ),
        ("of one", Mixture { routing: RoutingShape { n_expert: 1, n_used: 1, ..plain }, ..PLAIN }),
    ] {
        compare(name, MAX_NMSE, &mixture);
    }
}

#[test]
fn rows_have_the_same_bits_in_any_company() {
    let Some(mut gpu) = gpu() else { return };
    let whole = PLAIN.run(&mut gpu);
    for row in 0..PLAIN.n_rows {
        let alone = PLAIN.run_rows(&mut gpu, row..row + 1);
        assert!(alone == whole[row * N_EMBD..][..N_EMBD], "row {row}");
    }
}

/// Scores that are no numbers choose experts as well, and make the result none.
#[test]
fn scores_that_are_no_numbers_make_no_result() {
    let Some(mut gpu) = gpu() else { return };
    gpu.reserve_experts(1, &ExpertNeeds { n_expert: 8, n_used: 2, n_embd: N_EMBD, n_ff: N_FF }).unwrap();
    let inner = matrix(&mut gpu, 60, N_EMBD, 8 * N_FF);
    let down = matrix(&mut gpu, 61, N_FF, 8 * N_EMBD);
    let of = |all, n_rows| ExpertMatrix { all, first: 0, stride: n_rows, n_rows, bias: None };
    let experts = Experts {
        routing: PLAIN.routing,
        choice_bias: None,
        activation: Activation::Silu,
        gate: of(&inner, N_FF),
        up: of(&inner, N_FF),
        down: of(&down, N_EMBD),
    };
    let mut scores = buffer(&mut gpu, &[f32::NAN; 8]);
    let x = buffer(&mut gpu, &random(62, N_EMBD));
    let mut out = buffer(&mut gpu, &[0.0; N_EMBD]);
    gpu.experts(&experts, &mut scores, &x, Tokens { gemv: 1, gemm: 0 }, &mut out).unwrap();
    assert!(values(&mut gpu, &out, N_EMBD).iter().all(|x| x.is_nan()));
}

/// Experts that lie in two buffers where the device binds no more than 128 MiB, and one across both; and the host hears of
/// nothing until it asks.
#[test]
fn experts_may_lie_in_any_buffer() {
    const ROW_LEN: usize = 512;
    const N_EXPERT: usize = 70;
    const N_INNER: usize = 500;
    /// The second buffer of 128 MiB begins with row 65 536.
    const MARKED: [usize; 4] = [0, 64, 65, 69];
    let Some(mut gpu) = gpu() else { return };
    let counters = gpu.counters();
    // Of each expert the rows of the gate and then those of up, all the same.
    let mut bytes = vec![0; 4 * ROW_LEN * N_EXPERT * 2 * N_INNER];
    for expert in MARKED {
        let weight = (expert as f32 + 1.0).to_le_bytes();
        bytes[4 * ROW_LEN * expert * 2 * N_INNER..][..4 * ROW_LEN * 2 * N_INNER]
            .chunks_exact_mut(4)
            .for_each(|at| at.copy_from_slice(&weight));
    }
    let n_rows = N_EXPERT * 2 * N_INNER;
    let bytes = MatrixBytes::in_memory(SharedBytes::new(bytes));
    let inner = MatrixData { ggml_type: GgmlType::F32, row_len: ROW_LEN, n_rows, bytes };
    let inner = gpu.matrix(inner).unwrap();
    let ones: Vec<u8> = [1.0_f32; N_INNER * N_EXPERT].iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = MatrixBytes::in_memory(SharedBytes::new(ones));
    let down = MatrixData { ggml_type: GgmlType::F32, row_len: N_INNER, n_rows: N_EXPERT, bytes };
    let down = gpu.matrix(down).unwrap();
    let needs = ExpertNeeds { n_expert: N_EXPERT, n_used: MARKED.len(), n_embd: ROW_LEN, n_ff: N_INNER };
    gpu.reserve_experts(1, &needs).unwrap();
    let of_inner =
        |first| ExpertMatrix { all: &inner, first, stride: 2 * N_INNER, n_rows: N_INNER, bias: None };
    let experts = Experts {
        routing: RoutingShape {
            n_expert: N_EXPERT,
            n_used: MARKED.len(),
            scoring: Scoring::SoftmaxOfUsed,
            normalize: true,
            scale: 1.0,
            groups: None,
        },
        choice_bias: None,
        activation: Activation::Identity,
        gate: of_inner(0),
        up: of_inner(N_INNER),
        down: ExpertMatrix { all: &down, first: 0, stride: 1, n_rows: 1, bias: None },
    };
    let mut scores = [0.0; N_EXPERT];
    MARKED.iter().for_each(|expert| scores[*expert] = 1.0);
    let (mut scores, x) = (buffer(&mut gpu, &scores), buffer(&mut gpu, &[1.0; ROW_LEN]));
    let mut out = gpu.buffer("out", 1).unwrap();
    let before = counters.stats();
    gpu.experts(&experts, &mut scores, &x, Tokens { gemv: 1, gemm: 0 }, &mut out).unwrap();
    let after = counters.stats();
    assert_eq!((after.n_submissions, after.n_waits), (before.n_submissions, before.n_waits));
    let found = f64::from(values(&mut gpu, &out, 1)[0]);
    let square = |expert: &usize| ((expert + 1) * ROW_LEN).pow(2) as f64;
    let expected = MARKED.iter().map(square).sum::<f64>() / MARKED.len() as f64 * N_INNER as f64;
    println!("{found} and {expected}, in {} dispatches", after.n_dispatches - before.n_dispatches);
    assert!((found / expected - 1.0).abs() < 1e-6);
}
