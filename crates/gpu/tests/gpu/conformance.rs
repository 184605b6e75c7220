//! The suite for backends on the device, and the same with matrices in many buffers.

use metallic::backend::conformance::{self, Bounds, Options, Report};
use metallic_gpu::Gpu;

use crate::gpu;

/// Types that no model has its matrices in, and that of keys and values that kernels don't read.
const REFUSED: [&str; 8] = ["Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64", "q4_0"];

/// Less than most matrices of those cases, and more than a row.
const PART_BYTES: u64 = 5000;

fn check(mut gpu: Gpu, operations: Option<&[&str]>) -> Report {
    // Half precision has 11 bits, of which a half of the last is rounded: of inputs and weights, and of experts twice.
    let halves = if gpu.rounds_to_halves() { 1e-6 } else { Bounds::FLOATS.halves };
    let blocks = if gpu.rounds_inputs_to_bytes() { Bounds::ROUNDED.blocks } else { halves };
    // Devices may divide less exactly than the CPU.
    let divides_exactly = gpu.device().report().is_software();
    let bounds = Bounds { divides_exactly, halves, blocks, ..Bounds::FLOATS };
    let full = std::env::var_os("METALLIC_FULL").is_some();
    let report = conformance::check(&mut gpu, &Options { bounds, operations, full }).unwrap();
    println!("{report}");
    report.assert_passed();
    report
}

#[test]
fn the_device_passes() {
    let Some(gpu) = gpu() else { return };
    let report = check(gpu, None);
    for name in REFUSED {
        assert!(report.refused().any(|case| case.what.starts_with(name)), "{name} is taken");
    }
    // Beside these, heads of odd lengths, whose rows end within a word.
    let is_known =
        |what: &str| REFUSED.iter().any(|name| what.starts_with(name)) || what.ends_with("[23, 33]");
    let others: Vec<_> = report.refused().filter(|case| !is_known(&case.what)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// What multiplies by small matrices can do without.
#[test]
fn products_without_small_matrices_pass_too() {
    let Some(gpu) = gpu() else { return };
    if !gpu.rounds_to_halves() {
        assert!(std::env::var_os("METALLIC_REQUIRE_MATRICES").is_none(), "no small matrices");
        println!("skipped: {} multiplies no small matrices", gpu.device().report());
        return;
    }
    check(gpu.without_rounding(), Some(&["matmul", "experts"]));
}

/// Where the device does not say that they are fast, they are right all the same.
#[test]
fn products_of_bytes_pass() {
    let Some(gpu) = gpu() else { return };
    check(gpu.with_products_of_bytes(), Some(&["matmul", "matrix_rows"]));
}

#[test]
fn matrices_may_be_in_many_buffers() {
    let Some(gpu) = gpu() else { return };
    check(gpu.with_parts_of(PART_BYTES), Some(&["matrix_rows"]));
}
