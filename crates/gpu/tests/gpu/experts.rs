//! Which experts rows go to is the device's own business.

use metallic::GgmlType;
use metallic::backend::{
    Activation, Backend, ExpertMatrix, ExpertNeeds, Experts, RoutingShape, Scoring, Tokens,
};
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};

use crate::gpu;

const N_EXPERT: usize = 70;
const N_EMBD: usize = 64;
const N_INNER: usize = 50;

/// Experts that rows go to. With seven in a buffer, they lie in the first, in the midst, in two at once and in the last.
const MARKED: [usize; 4] = [0, 36, 41, 69];

fn floats(row_len: usize, rows: Vec<f32>) -> MatrixData {
    let n_rows = rows.len() / row_len;
    let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = MatrixBytes::in_memory(SharedBytes::new(bytes));
    MatrixData { ggml_type: GgmlType::F32, row_len, n_rows, bytes }
}

/// The host hears of nothing until it asks.
#[test]
fn a_mixture_is_left_to_the_device() {
    let expert_bytes = 4 * N_EMBD * 2 * N_INNER;
    let Some(gpu) = gpu() else { return };
    let mut gpu = gpu.with_parts_of((6 * expert_bytes + expert_bytes / 2) as u64);
    let counters = gpu.counters();
    // Of each expert the rows of the gate and then those of up, all the same.
    let weight = |expert: usize| if MARKED.contains(&expert) { expert as f32 + 1.0 } else { 0.0 };
    let of_expert = |expert| std::iter::repeat_n(weight(expert), N_EMBD * 2 * N_INNER);
    let inner = gpu.matrix(floats(N_EMBD, (0..N_EXPERT).flat_map(of_expert).collect())).unwrap();
    let down = gpu.matrix(floats(N_INNER, vec![1.0; N_INNER * N_EXPERT])).unwrap();
    let needs = ExpertNeeds { n_expert: N_EXPERT, n_used: MARKED.len(), n_embd: N_EMBD, n_ff: N_INNER };
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
    let chosen: Vec<f32> =
        (0..N_EXPERT).map(|expert| f32::from(u8::from(MARKED.contains(&expert)))).collect();
    let [mut scores, mut x, mut out] = [N_EXPERT, N_EMBD, 1].map(|len| gpu.buffer("a test", len).unwrap());
    gpu.write(&chosen, &mut scores).unwrap();
    gpu.write(&[1.0; N_EMBD], &mut x).unwrap();
    let before = counters.stats();
    gpu.experts(&experts, &mut scores, &x, Tokens { gemv: 1, gemm: 0 }, &mut out).unwrap();
    let work = counters.stats().since(before);
    assert_eq!((work.n_submissions, work.n_waits), (0, 0));
    let mut found = [0.0];
    gpu.read(&out, 0, &mut found).unwrap();
    let square = |expert: &usize| ((expert + 1) * N_EMBD).pow(2) as f64;
    let expected = MARKED.iter().map(square).sum::<f64>() / MARKED.len() as f64 * N_INNER as f64;
    println!("{} and {expected}, in {} dispatches", found[0], work.n_dispatches);
    assert!((f64::from(found[0]) / expected - 1.0).abs() < 1e-6);
}
