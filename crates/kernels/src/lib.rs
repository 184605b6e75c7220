//! Arithmetic on quantized rows, on the CPU.
//!
//! A *row* is the bytes of one output of a matrix: consecutive blocks of one [`GgmlType`]. This crate
//! knows how each format's blocks decode and how a row meets an activation vector; it knows nothing of
//! models, files or memory budgets.
//!
//! # What results depend on
//! Not on the number of threads, nor on what else is in the same call. On the instruction set, in the
//! last bits: integer sums are exact on all of them, and the floats that these become are added up in an
//! order that suits the set. Norms, activations and softmax have the same bits everywhere.
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(
        dead_code,
        reason = "formats say how to expand panels, which no kernel of this architecture takes"
    )
)]

pub mod activation;
pub mod activations;
pub mod attention;
mod block;
mod buffer;
mod gemm;
pub mod isa;
mod lanes;
pub mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod norm;
pub mod pool;
mod quants;
pub mod recurrent;
pub mod registry;
pub mod rope;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_512;

pub use half::f16;
pub use isa::Isa;
pub use metallic_gguf::GgmlType;
pub use pool::ThreadPool;
pub use registry::{Dot, QuantOps};
