//! Mixtures of experts.

use std::ops::Range;

use metallic_gguf::GgmlType;

use super::computation::{Computation, buffer, optional, random, values};
use super::products::takes;
use super::suite::{Bound, Suite};
use super::weights::Weights;
use crate::backend::{
    Activation, Backend, Cpu, ExpertGroups, ExpertMatrix, ExpertNeeds, Experts, RoutingShape, Scoring,
    SwapNeeds, Tokens,
};
use crate::error::Result;
use crate::memory::{ExpertPolicy, Places};

/// A layer of experts, and a batch.
#[derive(Clone)]
struct Mixture {
    routing: RoutingShape,
    /// Rows of the batch, of which the first so many are multiplied one by one.
    rows: Range<usize>,
    n_gemv: usize,
    has_choice_bias: bool,
    has_biases: bool,
    /// Whether the gate and up of an expert follow each other in one matrix.
    is_merged: bool,
    /// Where experts are brought in once they are chosen, how many can stay.
    n_places: Option<usize>,
    activation: Activation,
    n_embd: usize,
    n_ff: usize,
    gate_up: Weights,
    down: Weights,
    /// Scores of a router, and values of rows, that are all this.
    score: Option<f32>,
    value: Option<f32>,
}

const PLAIN: RoutingShape = RoutingShape {
    n_expert: 8,
    n_used: 2,
    scoring: Scoring::Softmax,
    normalize: true,
    scale: 1.0,
    groups: None,
};

/// Rows of a whole batch.
const N_ROWS: usize = 33;

impl Mixture {
    fn new(routing: RoutingShape) -> Self {
        Self::of(GgmlType::F32, routing, [20, 13])
    }

    /// With weights of a type, networks from and to `n_embd` values, `n_ff` within.
    fn of(ggml_type: GgmlType, routing: RoutingShape, [n_embd, n_ff]: [usize; 2]) -> Self {
        let n_expert = routing.n_expert;
        Self {
            routing,
            rows: 0..9,
            n_gemv: 9,
            has_choice_bias: false,
            has_biases: false,
            is_merged: false,
            n_places: None,
            activation: Activation::Silu,
            n_embd,
            n_ff,
            gate_up: Weights::random(ggml_type, n_embd, 2 * n_expert * n_ff),
            down: Weights::random(ggml_type, n_ff, n_expert * n_embd),
            score: None,
            value: None,
        }
    }

    fn matrix<B: Backend>(&self, b: &mut B, weights: &Weights) -> Result<B::Matrix> {
        let Some(n_places) = self.n_places else { return b.matrix(weights.data()) };
        let both = [&self.gate_up, &self.down].map(|weights| (weights.row_bytes(), weights.n_rows));
        let most = |of: fn(&(usize, usize)) -> usize| both.iter().map(of).max().unwrap_or(0);
        let (row_bytes, matrix_bytes) = (most(|(bytes, _)| *bytes), most(|(bytes, n_rows)| bytes * n_rows));
        b.reserve_slots(&SwapNeeds { row_bytes, matrix_bytes }, None)?;
        let places = Places::new(ExpertPolicy::default(), self.routing.n_expert, n_places);
        b.matrix_of_experts(weights.data(), places)
    }
}

impl Computation for Mixture {
    /// What the experts make of rows, added to what was there.
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { routing, n_embd, n_ff, .. } = *self;
        let (RoutingShape { n_expert, n_used, .. }, n_rows) = (routing, self.rows.len());
        b.reserve_experts(n_rows, &ExpertNeeds { n_expert, n_used: n_used + 1, n_embd, n_ff: n_ff + 1 })?;
        b.reserve_inputs(n_rows, n_embd.max(n_ff))?;
        let rows = |seed, width: usize| {
            random(seed, N_ROWS * width)[self.rows.start * width..self.rows.end * width].to_vec()
        };
        // Steps between scores, so that many are the same.
        let steps = |x: f32| self.score.unwrap_or((8.0 * x).round() / 4.0);
        let scores: Vec<f32> = rows(51, n_expert).into_iter().map(steps).collect();
        let x = rows(52, n_embd).into_iter().map(|x| self.value.unwrap_or(x)).collect::<Vec<_>>();
        let (mut scores, x) = (buffer(b, &scores)?, buffer(b, &x)?);
        let mut out = rows(53, n_embd);
        // A row more, which is to stay as it is.
        out.extend(random(60, n_embd));
        let mut out = buffer(b, &out)?;
        let choice_bias = optional(b, self.has_choice_bias.then(|| random(54, n_expert)))?;
        let (gate_up, down) = (self.matrix(b, &self.gate_up)?, self.matrix(b, &self.down)?);
        let mut bias = |seed, len: usize| optional(b, self.has_biases.then(|| random(seed, n_expert * len)));
        let [gate_bias, up_bias, down_bias] = [bias(57, n_ff)?, bias(58, n_ff)?, bias(59, n_embd)?];
        let (stride, first_up) = if self.is_merged { (2 * n_ff, n_ff) } else { (n_ff, n_expert * n_ff) };
        let inner = |first, bias| ExpertMatrix { all: &gate_up, first, stride, n_rows: n_ff, bias };
        let bias = down_bias.as_ref();
        let experts = Experts {
            routing,
            choice_bias: choice_bias.as_ref(),
            activation: self.activation,
            gate: inner(0, gate_bias.as_ref()),
            up: inner(first_up, up_bias.as_ref()),
            down: ExpertMatrix { all: &down, first: 0, stride: n_embd, n_rows: n_embd, bias },
        };
        let tokens = Tokens { gemv: self.n_gemv, gemm: n_rows - self.n_gemv };
        b.experts(&experts, &mut scores, &x, tokens, &mut out)?;
        values(b, &out, (n_rows + 1) * n_embd)
    }

    /// With the weights as floats.
    fn reference(&self, cpu: &mut Cpu) -> Result<Vec<f32>> {
        let (gate_up, down) = (self.gate_up.as_floats(), self.down.as_floats());
        Mixture { gate_up, down, ..self.clone() }.run(cpu)
    }
}

/// Rows of a batch by themselves.
struct ByRow<'a>(&'a Mixture);

impl Computation for ByRow<'_> {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self(Mixture { rows, n_gemv, n_embd, .. }) = *self;
        let mut all = Vec::new();
        for row in rows.clone() {
            let n_gemv = usize::from(row - rows.start < *n_gemv);
            let alone = Mixture { rows: row..row + 1, n_gemv, ..self.0.clone() }.run(b)?;
            all.extend_from_slice(&alone[..*n_embd]);
        }
        all.extend(random(60, *n_embd));
        Ok(all)
    }
}

/// Which experts rows go to: as many values as there are experts, of which one is 1 where a row goes to that expert.
struct Choices(Mixture);

impl Choices {
    /// The network of expert `e` changes value number `e` alone.
    fn new(routing: RoutingShape, has_choice_bias: bool) -> Self {
        let n = routing.n_expert;
        let one = |is_one: bool| f32::from(u8::from(is_one));
        let ones = vec![1.0; 2 * n * n];
        let eye: Vec<f32> = (0..n * n).map(|i| one(i / n == i % n)).collect();
        // Few rows where there are many experts: each has as many values.
        let n_rows = if n > 100 { 3 } else { N_ROWS };
        let mixture = Mixture {
            rows: 0..n_rows,
            n_gemv: n_rows,
            has_choice_bias,
            activation: Activation::Identity,
            value: Some(1.0),
            gate_up: Weights::floats(n, &ones),
            down: Weights::floats(1, &eye),
            ..Mixture::of(GgmlType::F32, routing, [n, 1])
        };
        Self(mixture)
    }
}

impl Computation for Choices {
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Mixture { n_embd, ref rows, .. } = self.0;
        let before = random(53, N_ROWS * n_embd);
        let after = self.0.run(b)?;
        let chosen = after[..rows.len() * n_embd].iter().zip(&before);
        Ok(chosen.map(|(after, before)| f32::from(u8::from(after != before))).collect())
    }
}

pub(super) fn check<B: Backend>(suite: &mut Suite<'_, B>) {
    let sigmoid = RoutingShape { scoring: Scoring::Sigmoid, ..PLAIN };
    let groups = |n_group, n_used| Some(ExpertGroups { n_group, n_used });
    let many = RoutingShape { n_expert: 512, n_used: 32, groups: groups(8, 3), ..sigmoid };
    let odd = RoutingShape { n_expert: 66, n_used: 7, groups: groups(11, 4), normalize: false, ..PLAIN };
    let of_used = RoutingShape { scoring: Scoring::SoftmaxOfUsed, normalize: false, scale: 1.7, ..PLAIN };
    let one_of_each = RoutingShape { groups: groups(8, 4), ..sigmoid };
    for (name, routing, has_choice_bias) in [
        ("softmax", PLAIN, false),
        ("shares as they are", RoutingShape { normalize: false, ..PLAIN }, false),
        ("sigmoids, scaled", RoutingShape { scale: 2.5, ..sigmoid }, false),
        ("sigmoids, a biased choice", sigmoid, true),
        ("softmax of those used", of_used, false),
        ("all of them", RoutingShape { n_used: 8, ..of_used }, false),
        ("groups", odd, false),
        ("many in groups", many, false),
        ("many in groups, a biased choice", many, true),
        ("one in each group, a biased choice", one_of_each, true),
        ("one", RoutingShape { n_expert: 1, n_used: 1, ..PLAIN }, false),
    ] {
        let RoutingShape { n_expert, n_used, .. } = routing;
        let what = format!("{name}, {n_used} of {n_expert}");
        let mixture = Mixture { has_choice_bias, ..Mixture::new(routing) };
        suite.compare("experts", &what, Bound::Nmse(suite.bounds.floats), &mixture);
        let choices = Choices::new(routing, has_choice_bias);
        suite.compare("experts", format!("{what}, the choice"), Bound::Bits, &choices);
    }
    networks(suite);
    if suite.backend.memory().is_some() {
        for [n_embd, n_ff] in [[20, 13], [64, 32]] {
            let mixture = Mixture::of(GgmlType::F32, PLAIN, [n_embd, n_ff]);
            let resident = Mixture { is_merged: true, rows: 0..N_ROWS, n_gemv: 2, ..mixture };
            for n_places in [0, 3, 8] {
                let brought = Mixture { n_places: Some(n_places), ..resident.clone() };
                let what = format!("networks of {n_embd} and {n_ff}, places for {n_places} of 8");
                suite.same_bits("matrix_of_experts", what, [&resident, &brought]);
            }
        }
    }
}

/// Whatever the networks are, and whichever way rows go.
fn networks<B: Backend>(suite: &mut Suite<'_, B>) {
    let plain = Mixture::new(PLAIN);
    let clamped = Activation::ClampedSwish;
    let floats = Bound::Nmse(suite.bounds.floats);
    for (what, mixture) in [
        ("gate and up in one matrix", Mixture { is_merged: true, ..plain.clone() }),
        ("biases", Mixture { has_biases: true, ..plain.clone() }),
        ("biases, clamped", Mixture { has_biases: true, activation: clamped, ..plain.clone() }),
        ("no row", Mixture { rows: 0..0, n_gemv: 0, ..plain.clone() }),
        ("33 rows either way", Mixture { rows: 0..N_ROWS, n_gemv: 2, ..plain.clone() }),
        ("scores that are no numbers", Mixture { rows: 0..1, n_gemv: 1, score: Some(f32::NAN), ..plain }),
    ] {
        let bound = if mixture.score.is_some() { Bound::Exact } else { floats.clone() };
        suite.compare("experts", what, bound, &mixture);
    }
    // All rows to one.
    let one = RoutingShape { n_expert: 1, n_used: 1, ..PLAIN };
    for n_gemv in [0, 2, 20] {
        let batch = Mixture { rows: 0..N_ROWS, n_gemv, ..Mixture::of(GgmlType::F32, one, [64, 32]) };
        let what = format!("one expert, {n_gemv} + {} tokens", N_ROWS - n_gemv);
        suite.compare("experts", &what, Bound::Nmse(suite.bounds.floats), &batch);
        suite.same_bits_of("experts", format!("{what}, alone and in a batch"), &batch, &ByRow(&batch));
    }
    for (ggml_type, sizes) in [
        (GgmlType::F32, [20, 13]),
        (GgmlType::F16, [64, 33]),
        (GgmlType::Q8_0, [96, 32]),
        (GgmlType::Q4_0, [64, 96]),
        (GgmlType::Q4_K, [256, 256]),
        (GgmlType::MXFP4, [64, 32]),
    ] {
        if !takes(suite.backend, ggml_type) {
            continue;
        }
        let [n_embd, n_ff] = sizes;
        let batch = Mixture { rows: 3..24, n_gemv: 4, ..Mixture::of(ggml_type, PLAIN, sizes) };
        let what = format!("{ggml_type}, networks of {n_embd} and {n_ff}, 4 + 17 tokens");
        suite.compare("experts", &what, suite.bound_of(ggml_type), &batch);
        suite.same_bits_of("experts", format!("{what}, alone and in a batch"), &batch, &ByRow(&batch));
    }
}
