//! Everything that can go wrong between a path and a token.

use std::fmt;
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

    /// Something could not be written.
    #[error("can't write {what}")]
    Write {
        /// What.
        what: &'static str,
        /// The reason of whoever was to take it.
        source: std::io::Error,
    },

    /// A file is no sequence that this model has saved, with the same types and instruction set.
    #[error("{} can't be gone on from: {reason}", path.display())]
    SavedSequence {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// What the model remembers of a sequence can't be saved.
    #[error("layers of the model have states, and prompts are saved only where all keep keys and values")]
    NotSaved,

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

    /// The system does not allow weights to be read in the way that was asked for.
    #[error("weights can't be read by {reader}")]
    Reader {
        /// The way.
        reader: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },

    /// A file that weights are streamed from or mapped of is not any more what was loaded, so that what was answered
    /// meanwhile is void.
    #[error("{} {change} while it was in use: load the model again", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
        /// What has happened to it.
        change: FileChange,
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

    /// The budget of a device's memory is below what the parts take that it is to compute.
    #[error(
        "a budget of {budget_bytes} bytes of the device's memory is too small: {} takes {floor_bytes} with a context of \
         {n_ctx}, batches of {n_batch} and keys and values as {kv_type}; less of these needs less",
        if *all { "what was asked for" } else { "the head or half a layer" }
    )]
    DeviceTooSmall {
        /// What was allowed.
        budget_bytes: u64,
        /// What is needed.
        floor_bytes: u64,
        /// Whether that is for all that was asked for; else for the first part that would be computed there.
        all: bool,
        /// Positions of a sequence.
        n_ctx: usize,
        /// Rows of a forward pass.
        n_batch: usize,
        /// What keys and values are kept as.
        kv_type: metallic_kernels::attention::KvType,
    },

    /// More was to be allocated than the memory budget has left.
    #[error("{what} would take {bytes} bytes of {tier}, and {left_bytes} of the budget are left")]
    OverBudget {
        /// What was to be allocated.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The kind of memory.
        tier: &'static str,
        /// What nobody has taken.
        left_bytes: u64,
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

    /// The file has more or fewer tokens than the embedding has rows.
    #[error(
        "{key} says {n_tokens} tokens, but token_embd.weight has {n_rows} rows: the file is damaged or was put together wrongly"
    )]
    Vocabulary {
        /// Where the number of tokens is from.
        key: String,
        /// How many there are.
        n_tokens: usize,
        /// How many the embedding has.
        n_rows: usize,
    },

    /// No code runs this architecture.
    #[error(
        "architecture {name:?} is not supported{}; supported are {}",
        nearest.as_ref().map_or(String::new(), |nearest| format!("; {nearest}")),
        supported.join(", ")
    )]
    UnsupportedArchitecture {
        /// `general.architecture` of the file.
        name: String,
        /// What comes nearest, if anything does.
        nearest: Option<Box<Nearest>>,
        /// Those that are.
        supported: Vec<&'static str>,
    },

    /// Tensors that the architecture needs are not in the file.
    #[error(
        "{} missing, {}: the file is incomplete or was made for another architecture",
        if names.len() == 1 { "a tensor is" } else { "tensors are" },
        names.join(", ")
    )]
    MissingTensors {
        /// Their names.
        names: Vec<String>,
    },

    /// A bias or scale of a weight that no code of this architecture applies.
    #[error("{name} changes what {weight} computes, and this version does not apply it")]
    UnusedPart {
        /// Its name.
        name: String,
        /// The weight that it is a part of.
        weight: String,
    },

    /// The file has factors of rotation for short contexts or for long ones, but not for the one that is wanted.
    #[error(
        "a context of {n_ctx} tokens needs {name}, which the file lacks; it can be used with a context {} {original_context}",
        if n_ctx > original_context { "of at most" } else { "above" }
    )]
    MissingRopeFactors {
        /// The tensor.
        name: &'static str,
        /// The context wanted.
        n_ctx: usize,
        /// The longest of the short ones.
        original_context: usize,
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

    /// Guesses for a model that can't take one back.
    #[error("the model's layers have states, which can't be cut back to before a guess that was wrong")]
    NoSpeculation,

    /// A model that can't guess for another.
    #[error(
        "the draft model has another vocabulary: token {id} is {own:?} there, and {other:?} in the model it is to guess for"
    )]
    DraftVocabulary {
        /// The first token that differs.
        id: u32,
        /// Its text in the draft model.
        own: String,
        /// Its text in the other.
        other: String,
    },

    /// An answer's form that can't be kept to.
    #[error("the form of the answer can't be kept to: {reason}")]
    Grammar {
        /// What is wrong with it.
        reason: String,
    },

    /// A token id outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {n_vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Ids are below this.
        n_vocab: usize,
    },

    /// Logits that are no distribution: some are not numbers, one is infinite, or all rule their token out.
    #[error(
        "the model's numbers are broken: at position {position} {}: the file is damaged, or its weights are too large \
         for this computation; download it again",
        if largest.is_nan() { "some logits are NaN".to_owned() } else { format!("the largest logit is {largest}") }
    )]
    BrokenLogits {
        /// Of the token that they follow.
        position: usize,
        /// The largest logit, or NaN if any is.
        largest: f32,
    },

    /// The KV cache has no page left for a sequence.
    #[error("the KV cache is full: all {n_pages} pages of {page_len} positions are in use")]
    CacheFull {
        /// Pages in the cache.
        n_pages: usize,
        /// Positions in a page.
        page_len: usize,
    },

    /// More sequences than a recurrent model has states for.
    #[error("all {n_sequences} sequences that this model keeps a state for are in use")]
    StatesFull {
        /// Sequences that it was loaded for.
        n_sequences: usize,
    },

    /// A context beyond the positions that the model has vectors for.
    #[error(
        "a context of {n_ctx} was asked for, and the model has vectors for {max} positions: ask for no more"
    )]
    ContextTooLong {
        /// What was asked for.
        n_ctx: usize,
        /// What there is.
        max: usize,
    },

    /// A forward pass was given up because whoever wanted it asks for that.
    #[error("the computation was interrupted")]
    Interrupted,

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

    /// A backend outside this crate failed.
    #[error("it can't be computed on the GPU")]
    Backend {
        /// Its own error.
        source: Box<dyn std::error::Error + Send + Sync>,
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

impl Error {
    /// Of one tensor.
    pub(crate) fn missing_tensor(name: &str) -> Self {
        Error::MissingTensors { names: vec![name.to_owned()] }
    }
}

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What has happened to a file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileChange {
    /// It is shorter.
    Cut,
    /// It was written to.
    Written,
    /// Another file has its name.
    Replaced,
    /// The system notes a change, which may be of what is in it, or only of its name, its links, its owner or its
    /// permissions.
    Altered,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cut => "was cut short",
            Self::Written => "was written to",
            Self::Replaced => "was replaced by another",
            Self::Altered => "was changed, if only in its name, links or permissions,",
        })
    }
}

/// The architecture that runs and comes nearest to one that does not: reading the file's keys as its own, it lacks and
/// has no use for the fewest tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// Its name.
    pub name: &'static str,
    /// Tensors that it needs and the file lacks; `*` stands for the layers.
    pub missing: Vec<String>,
    /// Tensors of the file that it has no use for.
    pub unused: Vec<String>,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nearest is {}", self.name)?;
        match (self.missing.as_slice(), self.unused.as_slice()) {
            ([], []) => write!(f, ", which needs just the tensors that this file has"),
            (missing, []) => write!(f, ", which needs also {}", listed(missing)),
            ([], unused) => write!(f, ", which has no use for {}", listed(unused)),
            (missing, unused) => {
                write!(f, ", which has no use for {}, and needs {}", listed(unused), listed(missing))
            }
        }
    }
}

/// Names that are shown of many.
const SHOWN: usize = 8;

/// The first few names.
pub(crate) fn listed(names: &[String]) -> String {
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
