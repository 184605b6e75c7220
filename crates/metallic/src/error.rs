//! Everything that can go wrong between a path and a token.

use std::path::PathBuf;

/// What failed, where, and what to do about it.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened or mapped.
    #[error("can't open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// An opened file could not be read into memory.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },

    /// Weights could not be read from a file while the model ran.
    #[error("can't read {n_bytes} bytes at offset {offset} of {}", path.display())]
    Stream {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// How much was wanted.
        n_bytes: usize,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A mapped file is not any more what was loaded.
    #[error("{} {change} while it was in use: load the model again", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// What has happened to it.
        change: crate::memory::FileChange,
    },

    /// The memory budget is below what the model needs even with all its weights streamed.
    #[error(
        "a budget of {budget_bytes} bytes is too small: this model needs at least {floor_bytes} with a context of \
         {n_ctx}, batches of {n_batch} and keys and values as {kv_type}; less of these needs less"
    )]
    BudgetTooSmall {
        /// What was allowed.
        budget_bytes: u64,
        /// What is needed.
        floor_bytes: u64,
        /// Positions of a sequence.
        n_ctx: usize,
        /// Rows of a forward pass.
        n_batch: usize,
        /// What keys and values are kept as.
        kv_type: metallic_kernels::attention::KvType,
    },

    /// A file is not valid GGUF, or a shard does not belong to its set.
    #[error("{} is not a valid GGUF model", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is malformed.
        source: metallic_gguf::Error,
    },

    /// A metadata key that the model needs is missing or has a wrong value.
    #[error("the model's metadata can't be used")]
    Metadata(#[from] metallic_gguf::Error),

    /// A metadata value that no model can have.
    #[error("metadata key {key} is {value}, but {rule}")]
    Config {
        /// The key.
        key: String,
        /// The value found.
        value: String,
        /// What it must be.
        rule: &'static str,
    },

    /// No code runs this architecture.
    #[error("architecture {name:?} is not supported; supported are {}", supported.join(", "))]
    UnsupportedArchitecture {
        /// `general.architecture` of the file.
        name: String,
        /// Those that are.
        supported: Vec<&'static str>,
    },

    /// A tensor that the architecture needs is not in the file.
    #[error("tensor {name} is missing: the file is incomplete or was made for another architecture")]
    MissingTensor {
        /// Its name.
        name: String,
    },

    /// A tensor has another shape than the metadata say.
    #[error("tensor {name} has shape {found:?}, but the metadata say {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Row length first.
        found: Vec<u64>,
        /// Row length first.
        expected: Vec<u64>,
    },

    /// A prompt that is longer than the context.
    #[error(
        "the prompt has {n_prompt} tokens, and the context holds {n_ctx}: shorten it or choose a larger context"
    )]
    PromptTooLong {
        /// Tokens in the prompt.
        n_prompt: usize,
        /// Positions in the context.
        n_ctx: usize,
    },

    /// A request without any token.
    #[error("the prompt has no tokens: the model needs at least one to begin with")]
    EmptyPrompt,

    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {n_vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Ids are below this.
        n_vocab: usize,
    },

    /// The KV cache has no page left for a sequence.
    #[error("the KV cache is full: all {n_pages} pages of {page_len} positions are in use")]
    CacheFull {
        /// Pages in the cache.
        n_pages: usize,
        /// Positions in a page.
        page_len: usize,
    },

    /// More requests than are let in.
    #[error("{n_waiting} requests are waiting already: try again when some have finished")]
    QueueFull {
        /// Requests in the queue.
        n_waiting: usize,
    },

    /// Sampling parameters that make no sense.
    #[error("the sampling parameters can't be used")]
    Sampling(#[from] crate::sampling::Error),

    /// A size that this machine's address space can't hold.
    #[error("{what} would need more bytes than this machine can address")]
    TooLarge {
        /// What was to be allocated.
        what: &'static str,
    },

    /// The allocator refused.
    #[error("no memory for {what}: {bytes} bytes")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },

    /// The worker threads could not be started.
    #[error("can't start {n_threads} threads")]
    Threads {
        /// Threads asked for.
        n_threads: usize,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
