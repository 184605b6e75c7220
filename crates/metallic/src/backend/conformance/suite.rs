//! Runs cases and judges what they give.

use std::fmt;

use metallic_gguf::GgmlType;

use super::computation::Computation;
use super::{Bounds, Case, Options, Report, Verdict};
use crate::backend::{Backend, Cpu};
use crate::error::Result;
use crate::memory::Tier;

/// A backend, and what was found of it so far.
pub(super) struct Suite<'a, B: Backend> {
    pub(super) backend: &'a mut B,
    pub(super) bounds: Bounds,
    pub(super) full: bool,
    /// What the backend's memory is charged to.
    pub(super) account: Tier,
    cpu: Cpu,
    operations: Option<&'a [&'a str]>,
    report: Report,
}

/// What is lost at most where subnormal floats are taken for zero: one that is multiplied with a small factor.
const LOST: f32 = 16.0 * f32::MIN_POSITIVE;

/// How near results must be.
#[derive(Clone, Debug)]
pub(super) enum Bound {
    /// The same bits.
    Bits,
    /// The same numbers, but for what a device without subnormal floats loses.
    Exact,
    /// By [`nmse`].
    Nmse(f64),
    /// Each value, relative to itself or to one: where they are of any size.
    Relative(f32),
    /// Each value, by as much as is said for it.
    Steps(Vec<f32>),
}

impl<'a, B: Backend> Suite<'a, B> {
    pub(super) fn new(backend: &'a mut B, cpu: Cpu, options: &Options<'a>) -> Self {
        let account = backend.memory().cloned().unwrap_or_else(|| {
            let ram = Tier::ram(None);
            backend.charge_to(&ram);
            ram
        });
        let Options { bounds, operations, full } = *options;
        Self { backend, bounds, full, account, cpu, operations, report: Report::default() }
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }

    /// Whether cases of an operation are asked for.
    pub(super) fn wants(&self, operation: &str) -> bool {
        self.operations.is_none_or(|wanted| wanted.contains(&operation))
    }

    /// How near products with a type must be.
    pub(super) fn bound_of(&self, ggml_type: GgmlType) -> Bound {
        Bound::Nmse(match ggml_type {
            GgmlType::F32 => self.bounds.floats,
            ggml_type if ggml_type.is_quantized() => self.bounds.blocks,
            _ => self.bounds.halves,
        })
    }

    /// Compares what the backend computes with the reference.
    pub(super) fn compare(
        &mut self,
        operation: &'static str,
        what: impl fmt::Display,
        bound: Bound,
        computation: &impl Computation,
    ) {
        self.case(operation, what, |suite| {
            let expected = computation.reference(&mut suite.cpu)?;
            let found = computation.run(suite.backend)?;
            Ok(judge(&found, &expected, &bound))
        });
    }

    /// Compares the bits of two ways to the same.
    pub(super) fn same_bits(
        &mut self,
        operation: &'static str,
        what: impl fmt::Display,
        ways: [&impl Computation; 2],
    ) {
        self.same_bits_of(operation, what, ways[0], ways[1]);
    }

    /// The same, of computations of two kinds.
    pub(super) fn same_bits_of(
        &mut self,
        operation: &'static str,
        what: impl fmt::Display,
        one: &impl Computation,
        other: &impl Computation,
    ) {
        self.case(operation, what, |suite| {
            let expected = one.run(suite.backend)?;
            let found = other.run(suite.backend)?;
            Ok(judge(&found, &expected, &Bound::Bits))
        });
    }

    /// Something that the backend says or does: a reason where it is wrong.
    pub(super) fn hold(
        &mut self,
        operation: &'static str,
        what: impl fmt::Display,
        claim: impl FnOnce(&mut B, &Tier) -> Result<std::result::Result<(), String>>,
    ) {
        self.case(operation, what, |suite| Ok(claim(suite.backend, &suite.account)?.map(|()| 0.0)));
    }

    /// Notes what the backend refuses.
    pub(super) fn refused(&mut self, operation: &'static str, what: impl fmt::Display) {
        if self.wants(operation) {
            let case = Case { operation, what: what.to_string(), verdict: Verdict::Refused };
            self.report.cases.push(case);
        }
    }

    fn case(
        &mut self,
        operation: &'static str,
        what: impl fmt::Display,
        run: impl FnOnce(&mut Self) -> Result<std::result::Result<f64, String>>,
    ) {
        if !self.wants(operation) {
            return;
        }
        let running = Running { operation, what: what.to_string() };
        let result = run(self).unwrap_or_else(|error| Err(format!("failed: {error}")));
        let verdict = match result {
            Ok(error) => Verdict::Passed { error },
            Err(reason) => Verdict::Failed { reason },
        };
        self.report.cases.push(Case { operation, what: running.what.clone(), verdict });
    }
}

/// Names the case in which a backend panics.
struct Running {
    operation: &'static str,
    what: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the case of {}: {}", self.operation, self.what);
        }
    }
}

/// The error of results, or why they are wrong.
fn judge(found: &[f32], expected: &[f32], bound: &Bound) -> std::result::Result<f64, String> {
    if found.len() != expected.len() {
        return Err(format!("{} values instead of {}", found.len(), expected.len()));
    }
    let first = |is_near: &dyn Fn(usize, f32, f32) -> bool| {
        let far = |&i: &usize| !is_near(i, found[i], expected[i]);
        (0..found.len())
            .find(far)
            .map(|i| format!("value {i} is {:e} instead of {:e}", found[i], expected[i]))
    };
    let by_value = |is_near: &dyn Fn(usize, f32, f32) -> bool| first(is_near).map_or(Ok(0.0), Err);
    let both_none = |a: f32, b: f32| a.is_nan() && b.is_nan();
    match bound {
        Bound::Bits => by_value(&|_, a, b| a.to_bits() == b.to_bits() || both_none(a, b)),
        Bound::Exact => by_value(&|_, a, b| a == b || both_none(a, b) || (a - b).abs() < LOST),
        Bound::Relative(bound) => by_value(&|_, a, b| a == b || (a - b).abs() <= bound * (b.abs() + 1.0)),
        Bound::Steps(steps) => by_value(&|i, a, b| a == b || (a - b).abs() <= steps[i]),
        Bound::Nmse(bound) => {
            let error = nmse(found, expected);
            if error <= *bound {
                return Ok(error);
            }
            let mean = expected.iter().map(|x| x.abs()).sum::<f32>() / expected.len() as f32;
            let example = first(&|_, a, b| (a - b).abs() <= (*bound as f32).sqrt() * mean);
            let example = example.unwrap_or_else(|| "many values are a little off".to_owned());
            Err(format!("error {error:.1e} is above {bound:.0e}: {example}"))
        }
    }
}

/// Normalised mean squared error: `Σ(a−b)² / Σb²`. Infinite where one side has no number and the other has.
///
/// # Panics
/// If there are not as many values.
pub fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values");
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    match error / size {
        _ if error == 0.0 => 0.0,
        error if error.is_nan() => f64::INFINITY,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_judged_so() {
        let all = |bound: &Bound, found: &[f32]| judge(found, &[1.0, 0.0, -2.0], bound).is_ok();
        for (bound, near, far) in [
            (Bound::Bits, [1.0, 0.0, -2.0], [1.0, -0.0, -2.0]),
            (Bound::Exact, [1.0, -0.0, -2.0], [1.0, 1e-30, -2.0]),
            (Bound::Nmse(1e-6), [1.001, 0.0, -2.0], [1.01, 0.0, -2.0]),
            (Bound::Relative(1e-3), [1.0, 1e-4, -2.002], [1.0, 1e-2, -2.0]),
            (Bound::Steps(vec![0.0, 0.5, 0.0]), [1.0, 0.5, -2.0], [1.0, 0.0, -2.5]),
        ] {
            assert!(all(&bound, &near) && !all(&bound, &far), "{bound:?}");
            assert!(!all(&bound, &[1.0, f32::NAN, -2.0]) && !all(&bound, &[1.0, 0.0]), "{bound:?}");
        }
        assert_eq!(nmse(&[1.0, 3.0], &[1.0, 2.0]), 0.2);
        assert_eq!(nmse(&[], &[]), 0.0);
        assert_eq!(nmse(&[1.0], &[0.0]), f64::INFINITY);
    }
}
