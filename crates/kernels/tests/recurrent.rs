//! Mixers with a state against their definitions in f64, and their independence of threads and division into calls.

use metallic_kernels::activation::Activation;
use metallic_kernels::recurrent::{CausalConv, DeltaNet, KeyHeads, Mamba2};
use metallic_kernels::{Isa, ThreadPool};

mod common;
use common::{Random, largest_difference};

const N_ROWS: usize = 13;

/// Calls `run` on rows in one call, in two and one by one, on every instruction set and on several threads: the bits
/// must be the same. A call gets the state and the range of its rows, and returns their outputs, heads first, `row_len`
/// values a row.
fn in_any_division(
    n_state: usize,
    n_head: usize,
    row_len: usize,
    run: impl Fn(&ThreadPool, Isa, &mut [f32], std::ops::Range<usize>) -> Vec<f32>,
) -> Vec<f32> {
    let mut expected: Option<(Vec<f32>, Vec<f32>)> = None;
    for isa in Isa::available() {
        for (n_threads, cuts) in [(1, vec![0, N_ROWS]), (3, vec![0, 5, N_ROWS]), (2, (0..=N_ROWS).collect())]
        {
            let pool = ThreadPool::new(n_threads).expect("threads");
            let mut state = vec![0.0; n_state];
            let mut out = vec![0.0; n_head * N_ROWS * row_len];
            for cut in cuts.windows(2) {
                let part = run(&pool, isa, &mut state, cut[0]..cut[1]);
                let n = (cut[1] - cut[0]) * row_len;
                for (head, part) in part.chunks_exact(n).enumerate() {
                    out[(head * N_ROWS + cut[0]) * row_len..][..n].copy_from_slice(part);
                }
            }
            let found = (out, state);
            assert!(expected.get_or_insert_with(|| found.clone()) == &found, "{isa}, cut at {cuts:?}");
        }
    }
    expected.expect("an instruction set").0
}

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn softplus(x: f64) -> f64 {
    x.exp().ln_1p()
}

#[test]
fn a_convolution_is_its_definition() {
    let (n_channels, len) = (10, 4);
    let mut random = Random(1);
    let (kernel, bias) = (random.floats(n_channels * len), random.floats(n_channels));
    let x = random.floats(N_ROWS * n_channels);
    let conv = CausalConv { kernel: &kernel, bias: Some(&bias), activation: Activation::Relu, n_channels };
    let out = in_any_division((len - 1) * n_channels, 1, n_channels, |pool, isa, history, rows| {
        let x = &x[rows.start * n_channels..rows.end * n_channels];
        let mut out = vec![f32::NAN; x.len()];
        conv.run(pool, isa, history, x, &mut out);
        out
    });
    let expected: Vec<f64> = (0..N_ROWS * n_channels)
        .map(|i| {
            let (row, channel) = (i / n_channels, i % n_channels);
            let seen = (0..len).filter(|tap| row + tap >= len - 1).map(|tap| {
                let input = x[(row + tap + 1 - len) * n_channels + channel];
                f64::from(kernel[channel * len + tap]) * f64::from(input)
            });
            (seen.sum::<f64>() + f64::from(bias[channel])).max(0.0)
        })
        .collect();
    assert!(largest_difference(&out, &expected) < 1e-6);
}

#[test]
fn mamba_2_is_its_definition() {
    let (n_head, head_dim, n_group, d_state) = (4, 6, 2, 20);
    let mut random = Random(2);
    let a: Vec<f32> = random.floats(n_head).iter().map(|x| -x.abs()).collect();
    let (d, dt_bias) = (random.floats(n_head), random.floats(n_head));
    let mamba = Mamba2 { head_dim, d_state, n_group, a: &a, d: &d, dt_bias: &dt_bias };
    let width = n_head * head_dim + 2 * n_group * d_state;
    let (x_b_c, dt) = (random.floats(N_ROWS * width), random.floats(N_ROWS * n_head));
    let out = in_any_division(mamba.state_len(), n_head, head_dim, |pool, isa, state, rows| {
        let mut out = vec![f32::NAN; rows.len() * n_head * head_dim];
        let x_b_c = &x_b_c[rows.start * width..rows.end * width];
        mamba.run(pool, isa, state, x_b_c, &dt[rows.start * n_head..rows.end * n_head], &mut out);
        out
    });
    let mut expected = Vec::new();
    for head in 0..n_head {
        let mut state = vec![0.0; head_dim * d_state];
        for row in 0..N_ROWS {
            let input = f64s(&x_b_c[row * width..][..width]);
            let (x, b_c) = input.split_at(n_head * head_dim);
            let group = head / (n_head / n_group);
            let step = softplus(f64::from(dt[row * n_head + head]) + f64::from(dt_bias[head]));
            for i in 0..head_dim {
                let x = x[head * head_dim + i];
                let mut sum = f64::from(d[head]) * x;
                for n in 0..d_state {
                    let state = &mut state[i * d_state + n];
                    *state = *state * (f64::from(a[head]) * step).exp() + step * x * b_c[group * d_state + n];
                    sum += *state * b_c[(n_group + group) * d_state + n];
                }
                expected.push(sum);
            }
        }
    }
    assert!(largest_difference(&out, &expected) < 1e-5);
}

#[test]
fn the_delta_rule_is_its_definition() {
    for key_heads in [KeyHeads::Adjacent, KeyHeads::InTurn] {
        let (n_key_head, n_head, key_dim, value_dim) = (2, 4, 18, 7);
        let mut random = Random(3);
        let a: Vec<f32> = random.floats(n_head).iter().map(|x| -x.abs()).collect();
        let dt_bias = random.floats(n_head);
        let net = DeltaNet { n_key_head, key_dim, value_dim, key_heads, a: &a, dt_bias: &dt_bias, eps: 1e-6 };
        let keys_len = n_key_head * key_dim;
        let width = 2 * keys_len + n_head * value_dim;
        let q_k_v = random.floats(N_ROWS * width);
        let (beta, alpha) = (random.floats(N_ROWS * n_head), random.floats(N_ROWS * n_head));
        let out = in_any_division(net.state_len(), n_head, value_dim, |pool, isa, state, rows| {
            let mut out = vec![f32::NAN; rows.len() * n_head * value_dim];
            let mut q_k_v = q_k_v[rows.start * width..rows.end * width].to_vec();
            let heads = rows.start * n_head..rows.end * n_head;
            net.run(pool, isa, state, &mut q_k_v, &beta[heads.clone()], &alpha[heads], &mut out);
            out
        });
        let unit = |x: &[f64]| {
            let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            x.iter().map(|x| x / length).collect::<Vec<_>>()
        };
        let mut expected = Vec::new();
        for head in 0..n_head {
            let key_head = match key_heads {
                KeyHeads::Adjacent => head / (n_head / n_key_head),
                KeyHeads::InTurn => head % n_key_head,
            };
            // A column for each value, as papers write it.
            let mut state = vec![vec![0.0; value_dim]; key_dim];
            for row in 0..N_ROWS {
                let input = f64s(&q_k_v[row * width..][..width]);
                let q = unit(&input[key_head * key_dim..][..key_dim]);
                let k = unit(&input[keys_len + key_head * key_dim..][..key_dim]);
                let v = &input[2 * keys_len + head * value_dim..][..value_dim];
                let of_head = |x: &[f32]| f64::from(x[row * n_head + head]);
                let decay = (f64::from(a[head]) * softplus(of_head(&alpha) + f64::from(dt_bias[head]))).exp();
                let beta = 1.0 / (1.0 + (-of_head(&beta)).exp());
                state.iter_mut().flatten().for_each(|s| *s *= decay);
                for j in 0..value_dim {
                    let known: f64 = (0..key_dim).map(|i| state[i][j] * k[i]).sum();
                    (0..key_dim).for_each(|i| state[i][j] += beta * (v[j] - known) * k[i]);
                    let sum: f64 = (0..key_dim).map(|i| state[i][j] * q[i]).sum();
                    expected.push(sum / (key_dim as f64).sqrt());
                }
            }
        }
        assert!(largest_difference(&out, &expected) < 1e-5, "{key_heads:?}");
    }
}
