//! One variant for each way a file can be malformed.

/// What is wrong with a GGUF file, and where.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A tensor has a type that this crate can't read.
    #[error("tensor {tensor:?} has type {id}, {what}")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// The id found.
        id: u32,
        /// What is known of that id.
        what: &'static str,
    },
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
