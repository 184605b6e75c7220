//! Runs GGUF language models inside a memory budget.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use metallic::{Engine, Event, GgufFile, GgufLoader, Request, text::Tokenizer};
//!
//! let file = GgufFile::open("model.gguf")?;
//! let tokenizer = Tokenizer::from_gguf(&file.gguf())?;
//! let model = GgufLoader::new(file).load()?;
//! let prompt = tokenizer.encode("The capital of France is", Default::default())?;
//! Engine::new(model, tokenizer).generate(Request::new(prompt), |event| {
//!     if let Event::Text { text, .. } = event {
//!         print!("{text}");
//!     }
//! })?;
//! # Ok(()) }
//! ```

pub mod backend;
mod cores;
pub mod engine;
mod error;
pub mod loader;
pub mod memory;
pub mod model;
pub mod plan;
pub mod sampling;
pub mod testing;
pub mod text;

pub use cores::default_threads;
pub use engine::{Engine, Event, FinishReason, Request};
pub use error::{Error, FileChange, Nearest, Result};
pub use loader::{GgufLoader, LoadMode};
pub use memory::{GgufFile, MemoryBudget};
pub use metallic_gguf as gguf;
pub use metallic_kernels::{GgmlType, Isa, ThreadPool};
pub use model::Model;
pub use plan::MemoryPlan;
