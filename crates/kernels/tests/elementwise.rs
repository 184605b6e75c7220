//! Norms, rotary embeddings and activations against their formulas in f64, on every instruction set.

use metallic_kernels::activation::{Activation, activate, activate_gated, softcap, softmax};
use metallic_kernels::norm::{add_rms_norm, layer_norm, rms_norm, rms_norm_in_place, rms_norm_rows};
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
fn rms_norm_is_its_formula() {
    let mut random = Random(1);
    for n in LENGTHS {
        let (x, weight, eps) = (random.floats(n), random.floats(n), 1e-5);
        let wide = f64s(&x);
        let scale = 1.0 / (wide.iter().map(|x| x * x).sum::<f64>() / n as f64 + f64::from(eps)).sqrt();
        let plain: Vec<f64> = wide.iter().map(|x| x * scale).collect();
        let weighted: Vec<f64> = plain.iter().zip(&weight).map(|(x, &w)| x * f64::from(w)).collect();

        let run = |weight: Option<&[f32]>| {
            on_every_isa(|isa| {
                let mut out = vec![0.0; n];
                rms_norm(isa, &x, weight, eps, &mut out);
                let mut in_place = x.clone();
                rms_norm_in_place(isa, &mut in_place, weight, eps);
                assert_eq!(out, in_place);
                if let Some(weight) = weight {
                    let mut sum = vec![1.0; n];
                    add_rms_norm(isa, &mut sum, &x, weight, eps);
                    assert!(sum.iter().zip(&out).all(|(sum, out)| *sum == 1.0 + out));
                }
                out
            })
        };
        assert!(largest_difference(&run(None), &plain) < 2e-6);
        assert!(largest_difference(&run(Some(&weight)), &weighted) < 2e-6);
    }
}

#[test]
fn rms_norm_of_rows_is_that_of_each_row() {
    let mut random = Random(2);
    let (x, weight) = (random.floats(7 * 40), random.floats(40));
    let mut expected = vec![0.0; x.len()];
    for (x, out) in x.chunks_exact(40).zip(expected.chunks_exact_mut(40)) {
        rms_norm(Isa::Scalar, x, Some(&weight), 1e-6, out);
    }
    for n_threads in 1..=3 {
        let pool = ThreadPool::new(n_threads).unwrap();
        let mut out = vec![0.0; x.len()];
        rms_norm_rows(&pool, Isa::best(), &x, 40, Some(&weight), 1e-6, &mut out);
        assert_eq!(out, expected);
    }
}

#[test]
fn layer_norm_is_its_formula() {
    let mut random = Random(3);
    for n in LENGTHS {
        let (x, weight, bias, eps) = (random.floats(n), random.floats(n), random.floats(n), 1e-5);
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x) + 3.0).collect();
        let x: Vec<f32> = wide.iter().map(|&x| x as f32).collect();
        let wide = f64s(&x);
        let mean = wide.iter().sum::<f64>() / n as f64;
        let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        let formula = |i: usize| (wide[i] - mean) * scale * f64::from(weight[i]) + f64::from(bias[i]);
        let expected: Vec<f64> = (0..n).map(formula).collect();
        let out = on_every_isa(|isa| {
            let mut out = vec![0.0; n];
            layer_norm(isa, &x, Some(&weight), Some(&bias), eps, &mut out);
            out
        });
        assert!(largest_difference(&out, &expected) < 1e-5);
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
    };
    let mut x: Vec<f32> = (-2000..=2000).map(|i| i as f32 / 137.0).collect();
    x.extend([-1e30, -200.0, -88.5, 88.5, 200.0, 1e30, f32::MIN_POSITIVE]);
    let up: Vec<f32> = x.iter().map(|x| (x * 7.0).sin()).collect();
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu] {
        let plain = on_every_isa(|isa| {
            let mut out = x.clone();
            activate(isa, activation, &mut out);
            out
        });
        let gated = on_every_isa(|isa| {
            let mut out = vec![0.0; x.len()];
            activate_gated(isa, activation, &x, &up, &mut out);
            out
        });
        for (i, &x) in x.iter().enumerate() {
            let expected = formula(activation, f64::from(x));
            let bound = 4e-7 * f64::from(x.abs()).max(1e-3);
            assert!(
                (f64::from(plain[i]) - expected).abs() <= bound,
                "{activation:?}({x}): {} {expected}",
                plain[i]
            );
            assert_eq!(gated[i], plain[i] * up[i]);
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
