//! Rotary embeddings against their formulas, each written out here independently.

use metallic_kernels::rope::{Rope, RopePairs, RopeParams, Yarn};

mod common;
use common::{Random, largest_difference};

const PLAIN: RopeParams<'_> = RopeParams {
    pairs: RopePairs::Adjacent,
    n_rot: 64,
    base: 10_000.0,
    scale: 1.0,
    factors: None,
    attn_factor: 1.0,
    yarn: None,
};

fn rotate(params: &RopeParams<'_>, row: &[f32], head_dim: usize, position: usize) -> Vec<f32> {
    let rope = Rope::new(params);
    assert_eq!(rope.n_rot(), params.n_rot);
    let mut angles = vec![0.0; params.n_rot];
    rope.angles(position, &mut angles);
    let mut out = row.to_vec();
    rope.rotate(&angles, &mut out, head_dim);
    out
}

/// Complex multiplication of pair `(a, b)` of each head with `magnitude · e^(i angle)`.
fn expected(
    row: &[f32],
    head_dim: usize,
    pairs: &[(usize, usize)],
    angle: impl Fn(usize) -> f64,
    magnitude: f64,
) -> Vec<f64> {
    let mut out: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    for head in out.chunks_exact_mut(head_dim) {
        for (i, &(a, b)) in pairs.iter().enumerate() {
            let (sine, cosine) = angle(i).sin_cos();
            let (x, y) = (head[a], head[b]);
            head[a] = magnitude * (x * cosine - y * sine);
            head[b] = magnitude * (x * sine + y * cosine);
        }
    }
    out
}

#[test]
fn both_pairings_and_partial_rotation() {
    let mut random = Random(1);
    for (n_rot, head_dim) in [(64, 64), (32, 64), (20, 30), (2, 2)] {
        let row = random.floats(3 * head_dim);
        let n = n_rot / 2;
        let adjacent: Vec<_> = (0..n).map(|i| (2 * i, 2 * i + 1)).collect();
        let halves: Vec<_> = (0..n).map(|i| (i, i + n)).collect();
        for (pairs, list) in [(RopePairs::Adjacent, adjacent), (RopePairs::Halves, halves)] {
            for position in [0, 1, 5, 4000] {
                let angle = |i: usize| position as f64 / 10_000f64.powf(2.0 * i as f64 / n_rot as f64);
                let out = rotate(&RopeParams { pairs, n_rot, ..PLAIN }, &row, head_dim, position);
                assert!(largest_difference(&out, &expected(&row, head_dim, &list, angle, 1.0)) < 1e-6);
            }
        }
    }
}

#[test]
fn linear_scale_and_frequency_factors() {
    let mut random = Random(2);
    let row = random.floats(64);
    let factors: Vec<f32> = (0..32).map(|i| 1.0 + i as f32 / 8.0).collect();
    let params = RopeParams {
        pairs: RopePairs::Halves,
        base: 500_000.0,
        scale: 0.25,
        factors: Some(&factors),
        attn_factor: 1.5,
        ..PLAIN
    };
    let pairs: Vec<_> = (0..32).map(|i| (i, i + 32)).collect();
    let angle = |i: usize| 77.0 * 0.25 / 500_000f64.powf(i as f64 / 32.0) / (1.0 + i as f64 / 8.0);
    let out = rotate(&params, &row, 64, 77);
    assert!(largest_difference(&out, &expected(&row, 64, &pairs, angle, 1.5)) < 2e-6);
}

/// The paper's words: r(d) turns within the original context; γ = 0 below α = `beta_slow`, 1 above
/// β = `beta_fast`, linear between; θ' = (1 − γ) θ/s + γ θ; √(1/t) = 0.1 ln s + 1. ggml makes the ramp
/// linear in the pair's index, with ends rounded outwards, where the paper has it linear in r.
#[test]
fn yarn() {
    let mut random = Random(3);
    let row = random.floats(128);
    let (s, context, base) = (16.0, 4096.0, 10_000f64);
    let params = RopeParams {
        n_rot: 128,
        scale: 1.0 / 16.0,
        yarn: Some(Yarn { ext_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0, original_context: 4096 }),
        ..PLAIN
    };
    let theta = |i: usize| base.powf(-(i as f64) / 64.0);
    let turns = |i: usize| context * theta(i) / (2.0 * std::f64::consts::PI);
    // The last pair that turns at least 32 times, and the first that turns at most once.
    let low = (0..64).rev().find(|&i| turns(i) >= 32.0).unwrap();
    let high = (0..64).find(|&i| turns(i) <= 1.0).unwrap();
    assert_eq!((low, high), (20, 46));
    let gamma = |i: usize| 1.0 - ((i as f64 - low as f64) / (high - low) as f64).clamp(0.0, 1.0);
    let angle = |i: usize| 1000.0 * ((1.0 - gamma(i)) * theta(i) / s + gamma(i) * theta(i));
    let pairs: Vec<_> = (0..64).map(|i| (2 * i, 2 * i + 1)).collect();
    let out = rotate(&params, &row, 128, 1000);
    assert!(largest_difference(&out, &expected(&row, 128, &pairs, angle, 0.1 * s.ln() + 1.0)) < 3e-6);
}

#[test]
fn yarn_with_no_extrapolation_is_linear_scaling() {
    let row = Random(4).floats(64);
    let linear = RopeParams { scale: 0.5, ..PLAIN };
    let yarn = Yarn { ext_factor: 0.0, beta_fast: 32.0, beta_slow: 1.0, original_context: 2048 };
    let with_yarn = RopeParams { yarn: Some(yarn), ..linear.clone() };
    assert_eq!(rotate(&linear, &row, 64, 99), rotate(&with_yarn, &row, 64, 99));
}
