//! Element-wise functions of a forward pass: activations, soft caps, softmax, and the exponential they
//! rest on.
//!
//! `exp` here is a polynomial without branches, so that loops over it are vectorised; the standard
//! library's is a call for each value. Its relative error is below 2⁻²², and it saturates instead of
//! overflowing.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

use crate::isa::Isa;
use crate::lanes;

/// The non-linear function of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + e^−x)`, also called swish.
    Silu,
    /// `x Φ(x)` in its tanh approximation, which ggml calls GELU (Hendrycks and Gimpel 2016).
    GeluTanh,
    /// `x Φ(x) = x (1 + erf(x/√2)) / 2`.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²` (So et al. 2021).
    ReluSquared,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `x`: what it gates is multiplied with it.
    Identity,
    /// `x / (1 + e^(−1.702 x))` of `x` up to 7. What it gates is kept within ±7, and one is added to it (gpt-oss).
    ClampedSwish,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 8] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Relu,
        Activation::ReluSquared,
        Activation::Sigmoid,
        Activation::Identity,
        Activation::ClampedSwish,
    ];
}

/// Bound of both sides of [`Activation::ClampedSwish`].
const SWISH_LIMIT: f32 = 7.0;

/// `x[i] = activation(x[i])`.
pub fn activate(isa: Isa, activation: Activation, x: &mut [f32]) {
    isa.run(
        #[inline(always)]
        || match activation {
            Activation::Silu => x.iter_mut().for_each(|x| *x = silu(*x)),
            Activation::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
            Activation::GeluErf => x.iter_mut().for_each(|x| *x = gelu_erf(*x)),
            Activation::Relu => x.iter_mut().for_each(|x| *x = relu(*x)),
            Activation::ReluSquared => x.iter_mut().for_each(|x| *x = relu_squared(*x)),
            Activation::Sigmoid => x.iter_mut().for_each(|x| *x = sigmoid(*x)),
            Activation::Identity => {}
            Activation::ClampedSwish => x.iter_mut().for_each(|x| *x = clamped_swish(*x)),
        },
    );
}

/// `out[i] = activation(gate[i]) · up[i]`: SwiGLU, GeGLU and ReGLU (Shazeer 2020).
///
/// # Panics
/// If the three differ in length.
pub fn activate_gated(isa: Isa, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && out.len() == up.len(), "a gate and an output for each value");
    isa.run(
        #[inline(always)]
        || {
            let triples = gate.iter().zip(up).zip(out);
            match activation {
                Activation::Silu => triples.for_each(|((gate, up), out)| *out = silu(*gate) * up),
                Activation::GeluTanh => triples.for_each(|((gate, up), out)| *out = gelu_tanh(*gate) * up),
                Activation::GeluErf => triples.for_each(|((gate, up), out)| *out = gelu_erf(*gate) * up),
                Activation::Relu => triples.for_each(|((gate, up), out)| *out = relu(*gate) * up),
                Activation::ReluSquared => {
                    triples.for_each(|((gate, up), out)| *out = relu_squared(*gate) * up);
                }
                Activation::Sigmoid => triples.for_each(|((gate, up), out)| *out = sigmoid(*gate) * up),
                Activation::Identity => triples.for_each(|((gate, up), out)| *out = gate * up),
                Activation::ClampedSwish => triples.for_each(|((gate, up), out)| {
                    *out = clamped_swish(*gate) * (up.clamp(-SWISH_LIMIT, SWISH_LIMIT) + 1.0);
                }),
            }
        },
    );
}

/// `x[i] = e^x[i] / Σ e^x[j]`. Does nothing to an empty slice.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    let (_, sum) = exp_shifted(isa, x, f32::NEG_INFINITY);
    scale(x, 1.0 / sum);
}

/// A step of an online softmax: `x[i] = e^(x[i] − m)` with `m` the largest of `x` and `floor`. Returns
/// `m` and the sum of the new `x`.
pub(crate) fn exp_shifted(isa: Isa, x: &mut [f32], floor: f32) -> (f32, f32) {
    isa.run(
        #[inline(always)]
        || {
            let largest = lanes::max(x).max(floor);
            x.iter_mut().for_each(|x| *x = exp(*x - largest));
            (largest, lanes::sum(x, |x| x))
        },
    )
}

/// `x[i] = cap · tanh(x[i] / cap)`: keeps logits within ±`cap` (Gemma 2).
pub fn softcap(isa: Isa, x: &mut [f32], cap: f32) {
    isa.run(
        #[inline(always)]
        || x.iter_mut().for_each(|x| *x = cap * tanh(*x / cap)),
    );
}

/// `x[i] += y[i]`.
///
/// # Panics
/// If the two differ in length.
pub fn add(x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "a summand for each value");
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `x[i] += factor · y[i]`.
///
/// # Panics
/// If the two differ in length.
pub fn add_scaled(x: &mut [f32], factor: f32, y: &[f32]) {
    assert_eq!(x.len(), y.len(), "a summand for each value");
    x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * y);
}

/// `x[i] = activation(gate[i]) · x[i]`, as [`activate_gated`] does it.
///
/// # Panics
/// If the two differ in length.
pub fn gate_in_place(isa: Isa, activation: Activation, gate: &[f32], x: &mut [f32]) {
    /// As many as stay in the nearest cache.
    const PART: usize = 256;
    let mut up = [0.0; PART];
    assert_eq!(gate.len(), x.len(), "a gate for each value");
    for (gate, x) in gate.chunks(PART).zip(x.chunks_mut(PART)) {
        let up = &mut up[..x.len()];
        up.copy_from_slice(x);
        activate_gated(isa, activation, gate, up, x);
    }
}

/// `x[i] *= factor`.
pub fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    // (1 + tanh u) / 2 is 1 / (1 + e^−2u), which does not cancel for negative u.
    let u = SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x);
    x / (1.0 + exp(-2.0 * u))
}

#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    x.max(0.0)
}

#[inline(always)]
fn relu_squared(x: f32) -> f32 {
    relu(x) * relu(x)
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `ln(1 + e^x)`.
#[inline(always)]
pub fn softplus(x: f32) -> f32 {
    // Beyond this the two are the same float.
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

#[inline(always)]
fn clamped_swish(x: f32) -> f32 {
    let x = x.min(SWISH_LIMIT);
    x / (1.0 + exp(-1.702 * x))
}

/// The error function to 1.5e-7 (Abramowitz and Stegun 1964, formula 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    (1.0 - p * exp(-a * a)).copysign(x)
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Near zero 1 − 2/(e^2x + 1) cancels; the series does not.
    let squared = x * x;
    let series = x * (1.0 + squared * (-1.0 / 3.0 + squared * (2.0 / 15.0 - squared * (17.0 / 315.0))));
    let formula = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if squared < 0.04 { series } else { formula }
}

/// e^x. Below −87 the result is that of −87, above 88 that of 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 · 2²³ rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: products of the first with integers are exact.
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = 1.428_606_8e-6;
    let x = x.clamp(-87.0, 88.0);
    // e^x = 2^n · e^r with |r| ≤ ln 2 / 2.
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // The Taylor series: its first missing term, r⁷/5040, is below 2⁻²².
    let p = 1.0 / 120.0 + r * (1.0 / 720.0);
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * p))));
    // The last bits of `shifted` are n, and the shift drops the others.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * power
}
