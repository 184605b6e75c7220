//! Where models come from, for a server that loads them as they are asked for.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::host::Hosted;

/// Models that can be loaded. Its functions may take long: they are called on threads that may wait.
pub trait Library: Send + Sync + 'static {
    /// All that are here.
    ///
    /// # Errors
    /// Why that can't be said.
    fn list(&self) -> Result<Vec<Listed>, Refused>;

    /// What a model is, without loading it.
    ///
    /// # Errors
    /// Why that can't be said.
    fn describe(&self, name: &str) -> Result<Description, Refused>;

    /// What a model would hold, and how fast it would be: if need be, what this machine does with it `is_measured`, which takes a
    /// second.
    ///
    /// # Errors
    /// Why it can't be loaded so.
    fn outline(&self, name: &str, wish: &Wish, is_measured: bool) -> Result<Outline, Refused>;

    /// Loads a model as it was outlined.
    ///
    /// # Errors
    /// Why that failed.
    fn load(&self, name: &str, wish: &Wish, progress: &Progress) -> Result<Hosted, Refused>;

    /// Brings a model here.
    ///
    /// # Errors
    /// Why that failed.
    fn pull(&self, name: &str, progress: &Progress) -> Result<(), Refused>;

    /// Removes a model's files.
    ///
    /// # Errors
    /// Why that failed.
    fn remove(&self, name: &str) -> Result<(), Refused>;
}

/// A model that is here.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What requests call it.
    pub name: String,
    /// Bytes of its files.
    pub n_bytes: u64,
}

/// What a model is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// As the file has it, such as `llama`.
    pub architecture: String,
    /// Positions that it was trained for.
    pub context_length: usize,
    /// Weights that it has; 0 where that is not known.
    pub n_params: u64,
    /// What most weights are kept as, such as `Q4_K_M`; empty where that is not known.
    pub quantization: String,
    /// Whether it calls tools in a way that is known.
    pub has_calls: bool,
    /// Whether it thinks in a way that is known.
    pub has_reasoning: bool,
}

/// What is asked of a model that is to be loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Bytes of main memory that it may hold; `None` for as many as it takes.
    pub ram_bytes: Option<u64>,
    /// Positions of its context; `None` for what the server was started with.
    pub n_ctx: Option<usize>,
}

/// What a model holds, and how fast it is predicted to be.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// What it holds where, the weights' places included.
    pub things: Vec<Thing>,
    /// Positions of its context.
    pub n_ctx: usize,
    /// Bytes of main memory, all together.
    pub ram_bytes: u64,
    /// Devices that compute parts of it.
    pub devices: Vec<Device>,
    /// Bytes of weights that a generated token reads.
    pub bytes_per_token: u64,
    /// `None` where this machine's rates are not known.
    pub predicted: Option<Predicted>,
}

/// Something that takes memory, or weights that lie on the disk.
#[derive(Clone, Debug, Serialize)]
pub struct Thing {
    /// What it is.
    pub name: String,
    /// What kind of thing.
    pub kind: Kind,
    /// `ram`, `disk`, or `vram` and the number of a device.
    pub tier: String,
    /// Its size.
    pub bytes: u64,
}

/// Kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Weights that stay.
    Resident,
    /// Weights that are swapped in as they are used.
    Swapped,
    /// Keys and values, and other states of sequences.
    Kv,
    /// Places that weights are swapped in to.
    Slots,
    /// What computing takes.
    Scratch,
    /// Anything else.
    Other,
}

/// A device, and how much of its memory a model takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is.
    pub name: String,
    /// Bytes of its memory that may be taken.
    pub budget_bytes: u64,
    /// Those that are.
    pub bytes: u64,
}

/// How fast a model would be.
#[derive(Clone, Debug, Serialize)]
pub struct Predicted {
    /// Tokens generated in a second.
    pub generation: f64,
    /// Tokens of a prompt in a second.
    pub prompt: f64,
    /// What bounds generation.
    pub bound: String,
}

/// Why something of a library's can't be had.
#[derive(Clone, Debug)]
pub struct Refused {
    /// For whoever asked.
    pub message: String,
    /// Whether the model is not here.
    pub is_unknown: bool,
    /// Bytes of main memory that it takes at least, where there are fewer.
    pub floor_bytes: Option<u64>,
}

impl Refused {
    /// For a reason.
    pub fn because(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_unknown: false, floor_bytes: None }
    }
}

/// How far some long work has come, in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Tells it.
    pub fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// What is done, of how much; 0 of 0 where nothing is known.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}
