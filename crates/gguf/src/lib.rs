//! The GGUF model file format.
#![forbid(unsafe_code)]
mod error;
mod ggml_type;
pub use error::{Error, Result};
pub use ggml_type::GgmlType;
