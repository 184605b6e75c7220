//! What can go wrong between a device and a result.

use metallic::GgmlType;

/// What failed, and of which device.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system has no device that computes.
    #[error("no GPU was found: no driver for {} is installed, or it shows no device", backends.join(", "))]
    NoAdapter {
        /// The interfaces that were asked.
        backends: Vec<&'static str>,
    },

    /// No device has this name or number, or several do.
    #[error(
        "{} GPU matches {wanted:?}; there are: {}",
        if *n_matches == 0 { "no" } else { "more than one" },
        known.join("; ")
    )]
    NotOne {
        /// What was asked for.
        wanted: String,
        /// How many match.
        n_matches: usize,
        /// The devices there are.
        known: Vec<String>,
    },

    /// A device without something that every kernel needs.
    #[error("{adapter} lacks {feature}, which this backend needs")]
    Lacks {
        /// The device.
        adapter: String,
        /// What it lacks.
        feature: &'static str,
    },

    /// The driver does not open the device.
    #[error("{adapter} can't be opened")]
    Open {
        /// The device.
        adapter: String,
        /// The driver's reason.
        source: wgpu::RequestDeviceError,
    },

    /// The device was reset or unplugged, or its driver failed: what it held is gone.
    #[error("the GPU was lost: {reason}")]
    Lost {
        /// The driver's reason.
        reason: String,
    },

    /// The driver has no memory left.
    #[error("the GPU has no memory for {what}: {bytes} bytes")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },

    /// Others have taken of the device's memory since a plan was made for it.
    #[error(
        "{adapter} has {free_bytes} bytes of memory free now, and the plan takes {needed_bytes} more: other programs have \
         taken them since it was made"
    )]
    Occupied {
        /// The device.
        adapter: String,
        /// What the plan takes beside what is allocated.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },

    /// The account of its memory has none left, so that the driver was not asked; or weights that could not be read.
    #[error(transparent)]
    Host(metallic::Error),

    /// A shader or pipeline that the driver does not take.
    #[error("kernel {kernel} can't be compiled: {reason}")]
    Compile {
        /// The kernel.
        kernel: String,
        /// The compiler's reason.
        reason: String,
    },

    /// The device does not do what it was told.
    #[error("the GPU refused a command: {reason}")]
    Command {
        /// The reason given.
        reason: String,
    },

    /// A type of weights that no kernel reads.
    #[error("weights of type {} can't be used on a GPU", ggml_type.name())]
    UnsupportedType {
        /// The type.
        ggml_type: GgmlType,
    },

    /// Something that no kernel does.
    #[error("{what} can't be done on a GPU")]
    Unsupported {
        /// What it is.
        what: String,
    },

    /// A thing that is larger than what a kernel may see at once, and can't be divided.
    #[error("{what} takes {bytes} bytes, and the GPU's kernels see no more than {max_bytes} at a time")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest that would do.
        max_bytes: u64,
    },
}

impl Error {
    /// Whether the device is gone, with all that it held: what used it must be loaded to another, or to it again.
    pub fn is_device_lost(&self) -> bool {
        matches!(self, Error::Lost { .. })
    }

    /// Something that no kernel does.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported { what: what.into() }
    }
}

impl From<Error> for metallic::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Host(error) => error,
            error => metallic::Error::Backend { source: Box::new(error) },
        }
    }
}

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
