//! Runs GGUF language models inside a memory budget.

pub mod backend;
mod error;
pub mod memory;
pub mod model;
pub mod sampling;
pub mod text;

pub use error::{Error, Result};
pub use memory::{GgufFile, MemoryPlan};
pub use metallic_gguf as gguf;
pub use metallic_kernels::{GgmlType, Isa};
pub use model::{GgufLoader, Model};
