//! Norms, rotary embeddings and activations against their formulas in f64, on every instruction set.

use metallic_kernels::activation::{Activation, activate, activate_gated, gate_in_place, softcap, softmax};
use metallic_kernels::norm::{Norm, NormKind};
use metallic_kernels::{Isa, ThreadPool};

mod common;
use common::{Random, largest_difference};

const LENGTHS: [usize; 7] = [1, 7, 16, 31, 64, 576, 2049];

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Runs `f` on every instruction set, wants the same bits from all, and returns them.
fn on_every_isa(f: impl Fn(Isa) -> Vec<f32>) -> Vec<f32> {
    let scalar = f(Isa::Scalar);
    for isa in Isa::available() {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&f(isa)), bits(&scalar), "{isa}");
    }
    scalar
}

#[test]
fn norms_are_their_formulas() {
    let mut random = Random(1);
    for (n, kind) in LENGTHS.into_iter().flat_map(|n| [(n, NormKind::Rms), (n, NormKind::Layer)]) {
        let (weight, bias, eps) = (random.floats(n), random.floats(n), 1e-5);
        let x: Vec<f32> = random.floats(n).iter().map(|x| x + 3.0).collect();
        let wide = f64s(&x);
        let mean = match kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => wide.iter().sum::<f64>() / n as f64,
        };
        let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for bias in [None, Some(&bias)] {
            let norm = Norm { kind, weight: &weight, bias: bias.map(Vec::as_slice), eps };
            let out = on_every_isa(|isa| {
                let mut out = vec![0.0; n];
                norm.write(isa, &x, &mut out);
                let mut in_place = x.clone();
                norm.write_over(isa, &mut in_place);
                assert_eq!(out, in_place);
                let mut sum = vec![1.0; n];
                norm.add(isa, &x, 0.5, &mut sum);
                assert!(sum.iter().zip(&out).all(|(sum, out)| *sum == 1.0 + 0.5 * out));
                out
            });
            let bias = |i: usize| bias.map_or(0.0, |bias| f64::from(bias[i]));
            let formula = |i: usize| (wide[i] - mean) * scale * f64::from(weight[i]) + bias(i);
            let expected: Vec<f64> = (0..n).map(formula).collect();
            assert!(largest_difference(&out, &expected) < 1e-5, "{kind:?} of {n}");
        }
    }
}

#[test]
fn the_norm_of_rows_is_that_of_each_row() {
    let mut random = Random(2);
    let (x, weight) = (random.floats(7 * 40), random.floats(40));
    let norm = Norm { kind: NormKind::Rms, weight: &weight, bias: None, eps: 1e-6 };
    let mut expected = vec![0.0; x.len()];
    for (x, out) in x.chunks_exact(40).zip(expected.chunks_exact_mut(40)) {
        norm.write(Isa::Scalar, x, out);
    }
    for n_threads in 1..=3 {
        let pool = ThreadPool::new(n_threads).unwrap();
        let mut out = vec![0.0; x.len()];
        norm.write_rows(&pool, Isa::best(), &x, &mut out);
        assert_eq!(out, expected);
    }
}

/// erf as its Taylor series, exact enough in f64 for |x| < 4; ±1 beyond.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum() * (1.0 - 1.5e-8);
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn activations_are_their_formulas() {
    let formula = |activation, x: f64| match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Identity => x,
        Activation::ClampedSwish => x.min(7.0) / (1.0 + (-1.702 * x.min(7.0)).exp()),
    };
    let mut x: Vec<f32> = (-2000..=2000).map(|i| i as f32 / 137.0).collect();
    x.extend([-1e18, -200.0, -88.5, 88.5, 200.0, 1e18, f32::MIN_POSITIVE]);
    let up: Vec<f32> = x.iter().map(|x| 9.0 * (x * 7.0).sin()).collect();
    for activation in Activation::ALL {
        let plain = on_every_isa(|isa| {
            let mut out = x.clone();
            activate(isa, activation, &mut out);
            out
        });
        let gated = on_every_isa(|isa| {
            let mut out = vec![0.0; x.len()];
            activate_gated(isa, activation, &x, &up, &mut out);
            let mut in_place = up.clone();
            gate_in_place(isa, activation, &x, &mut in_place);
            assert_eq!(in_place, out);
            out
        });
        for (i, &x) in x.iter().enumerate() {
            let expected = formula(activation, f64::from(x));
            let bound = 4e-7 * f64::from(x.abs()).max(expected.abs()).max(1e-3);
            assert!(
                (f64::from(plain[i]) - expected).abs() <= bound,
                "{activation:?}({x}): {} {expected}",
                plain[i]
            );
            let factor = match activation {
                Activation::ClampedSwish => up[i].clamp(-7.0, 7.0) + 1.0,
                _ => up[i],
            };
            assert_eq!(gated[i], plain[i] * factor);
        }
    }
}

#[test]
fn softmax_is_its_formula() {
    let mut random = Random(6);
    for n in LENGTHS {
        for spread in [1.0, 60.0, 1e4] {
            let x: Vec<f32> = random.floats(n).iter().map(|x| x * spread).collect();
            let wide = f64s(&x);
            let largest = wide.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
            let weights: Vec<f64> = wide.iter().map(|x| (x - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            let expected: Vec<f64> = weights.iter().map(|w| w / total).collect();
            let out = on_every_isa(|isa| {
                let mut out = x.clone();
                softmax(isa, &mut out);
                out
            });
            assert!(largest_difference(&out, &expected) < 5e-7, "{n} {spread}");
        }
    }
    softmax(Isa::best(), &mut []);
}

#[test]
fn softcap_is_its_formula() {
    let x: Vec<f32> = (-3000..3000).map(|i| (i as f32 / 50.0).powi(3) / 100.0).collect();
    for cap in [1.0f32, 30.0] {
        let out = on_every_isa(|isa| {
            let mut out = x.clone();
            softcap(isa, &mut out, cap);
            out
        });
        for (&x, &out) in x.iter().zip(&out) {
            let expected = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
            assert!(
                (f64::from(out) - expected).abs() <= 6e-7 * expected.abs(),
                "{cap}·tanh({x}/{cap}): {out} {expected}"
            );
        }
    }
}
