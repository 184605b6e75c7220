//! The suite for backends: the CPU passes it on every instruction set, and it has cases of every method of the trait.

use std::fs;
use std::path::Path;

use metallic::Isa;
use metallic::backend::Cpu;
use metallic::backend::conformance::{self, Bounds, Options, Report};

/// As `.ci/run full` asks for.
fn is_full() -> bool {
    std::env::var_os("METALLIC_FULL").is_some()
}

fn check(n_threads: usize, isa: Isa) -> Report {
    let mut cpu = Cpu::new(n_threads, isa).expect("threads");
    let options = Options { bounds: bounds(isa), full: is_full(), ..Options::default() };
    let report = conformance::check(&mut cpu, &options).expect("a thread");
    println!("{isa}, {n_threads} threads\n{report}");
    report
}

/// Tiles of bfloat16 multiply weights of 16 bits as pairs of such: with 16 digits.
fn bounds(isa: Isa) -> Bounds {
    let halves = if isa.name() == "amx" { 1e-8 } else { Bounds::ROUNDED.halves };
    Bounds { halves, ..Bounds::ROUNDED }
}

#[test]
fn the_cpu_passes_on_every_instruction_set() {
    for (i, isa) in Isa::available().into_iter().enumerate() {
        let report = check([3, 2, 1][i % 3], isa);
        report.assert_passed();
        assert_eq!(report.refused().count(), 0, "the CPU has everything");
        assert_complete(&report);
    }
}

/// Of each method of the trait there is a case, or the suite says where else it is tested.
fn assert_complete(report: &Report) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/mod.rs");
    let methods = methods(&fs::read_to_string(source).expect("the trait"));
    assert!(methods.len() > 40, "{methods:?}");
    for method in &methods {
        let n_cases = report.of(method).count();
        let is_elsewhere = conformance::ELSEWHERE.iter().any(|(name, _)| name == method);
        // The CPU has no memory that something could be swapped to.
        let swaps = ["matrix_swapped", "matrix_of_experts"].contains(&&**method);
        assert!(n_cases > 0 || is_elsewhere || swaps, "no case of {method}");
        assert!(n_cases == 0 || !is_elsewhere, "{method} has cases here");
    }
    for name in conformance::ELSEWHERE
        .iter()
        .map(|(name, _)| *name)
        .chain(report.cases.iter().map(|case| case.operation))
    {
        assert!(methods.iter().any(|method| method == name), "{name} is no method");
    }
}

/// The names of functions in the trait's braces.
fn methods(source: &str) -> Vec<String> {
    let (_, body) = source.split_once("pub trait Backend: Send {\n").expect("the trait");
    let (body, _) = body.split_once("\n}\n").expect("its end");
    let name = |line: &str| Some(line.strip_prefix("    fn ")?.split('(').next()?.to_owned());
    body.lines().filter_map(name).collect()
}

#[test]
fn only_the_wanted_operations_are_checked() {
    let mut cpu = Cpu::new(1, Isa::Scalar).expect("a thread");
    let options = Options { operations: Some(&["norm", "rotate"]), ..Options::default() };
    let report = conformance::check(&mut cpu, &options).expect("a thread");
    assert!(report.n_passed() > 20 && report.cases.iter().all(|c| ["norm", "rotate"].contains(&c.operation)));
}

/// A bound that is not kept is a failure that names the operation, the type and the shape.
#[test]
fn what_is_too_far_is_named() {
    let mut cpu = Cpu::new(1, Isa::Scalar).expect("a thread");
    let options = Options { operations: Some(&["experts"]), ..Options::default() };
    let report = conformance::check(&mut cpu, &options).expect("a thread");
    let failed: Vec<String> = report.failures().map(ToString::to_string).collect();
    // The CPU rounds the inputs of products with blocks to 8 bits.
    for ggml_type in ["Q8_0, networks of 96 and 32", "Q4_0, networks of 64 and 96"] {
        let named = format!("experts: {ggml_type}, 4 + 17 tokens: error ");
        assert!(failed.iter().any(|failure| failure.starts_with(&named)), "{failed:?}");
    }
    assert!(!failed.iter().any(|failure| failure.contains("F32,")), "{failed:?}");
}
