//! One variant for each way a file can be malformed.

use crate::cursor::ByteOrder;
use crate::ggml_type::GgmlType;

/// What is wrong with a GGUF file or a request to read one, and where.
///
/// Numbers are as the file has them; offsets are in bytes from the start of the file unless said otherwise.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // a field's name and the variant's text say what it is
pub enum Error {
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with {}{hint}", found.escape_ascii())]
    NotGguf { found: Vec<u8>, hint: &'static str },

    /// The version is none of 1, 2 and 3.
    #[error("GGUF version {version} is not supported: this reader knows versions 1 to 3")]
    UnsupportedVersion { version: u32 },

    /// The file ends in the middle of its header, metadata or tensor directory, or a length in it is wrong.
    #[error(
        "the file ends within {reading}: {needed} bytes wanted at offset {offset}, {available} left; \
         it is damaged or was not downloaded completely"
    )]
    Truncated { reading: String, offset: u64, needed: u64, available: u64 },

    /// The header declares more keys or tensors than the rest of the file could describe.
    #[error("the header declares {count} {what}, which {available} bytes can't hold: the file is damaged")]
    CountTooLarge { what: &'static str, count: u64, available: u64 },

    /// A metadata key has no characters.
    #[error("metadata key number {index} is empty")]
    EmptyKey { index: u64 },

    /// A metadata key is longer than [`crate::MAX_KEY_BYTES`].
    #[error("metadata key number {index} has {bytes} bytes; the format allows {limit}")]
    KeyTooLong { index: u64, bytes: u64, limit: u64 },

    /// A metadata key is not UTF-8.
    #[error("metadata key number {index} is not valid UTF-8")]
    KeyNotUtf8 { index: u64 },

    /// Two metadata entries have the same key.
    #[error("metadata key {key:?} occurs twice")]
    DuplicateKey { key: String },

    /// A value, or the elements of an array, have a type that the format does not define.
    #[error("key {key:?} has value type {id}, which the format does not define")]
    UnknownValueType { key: String, id: u32 },

    /// An array declares more elements than the rest of the file could hold.
    #[error("key {key:?} declares an array of {len} elements, which {available} bytes can't hold")]
    ArrayTooLong { key: String, len: u64, available: u64 },

    /// Arrays are nested deeper than [`crate::MAX_ARRAY_DEPTH`].
    #[error("key {key:?} nests arrays more than {limit} deep")]
    ArrayTooDeep { key: String, limit: usize },

    /// `general.alignment` is not a power of two, or above [`crate::MAX_ALIGNMENT`].
    #[error("general.alignment is {alignment}; it must be a power of two, at most {limit}")]
    BadAlignment { alignment: u64, limit: u64 },

    /// A key that is needed is not there.
    #[error("the metadata have no key {key:?}")]
    MissingKey { key: String },

    /// A key's value has another type than it must have.
    #[error("key {key:?} is {found}, but {expected} is expected")]
    WrongType { key: String, expected: &'static str, found: String },

    /// A key's value does not fit the type it is wanted as.
    #[error("key {key:?} is {value}, out of range for {target}")]
    OutOfRange { key: String, value: String, target: &'static str },

    /// A string that is wanted as text is not UTF-8.
    #[error("the string of key {key:?} is not valid UTF-8 at byte {at}")]
    ValueNotUtf8 { key: String, at: u64 },

    /// An array has another number of elements than it must have.
    #[error("key {key:?} has {found} elements, but {expected} are expected")]
    WrongLength { key: String, expected: u64, found: u64 },

    /// More layers than [`crate::MAX_LAYERS`].
    #[error("key {key:?} is wanted for {n_layers} layers; at most {limit} are supported")]
    TooManyLayers { key: String, n_layers: u64, limit: u64 },

    /// A tensor's name is longer than [`crate::MAX_TENSOR_NAME_BYTES`].
    #[error("the name of tensor number {index} has {bytes} bytes; at most {limit} are supported")]
    TensorNameTooLong { index: u64, bytes: u64, limit: u64 },

    /// A tensor's name is not UTF-8 or holds a NUL.
    #[error("the name of tensor number {index} is not text: {}", name.escape_ascii())]
    TensorNameNotText { index: u64, name: Vec<u8> },

    /// Two tensors have the same name, in one file or in two shards.
    #[error("tensor {tensor:?} occurs twice")]
    DuplicateTensor { tensor: String },

    /// A tensor has more than [`crate::MAX_DIMS`] dimensions.
    #[error("tensor {tensor:?} has {n_dims} dimensions; at most {limit} are supported")]
    TooManyDims { tensor: String, n_dims: u64, limit: u64 },

    /// A tensor has a type that this crate can't read.
    #[error("tensor {tensor:?} has type {id}, {what}")]
    UnsupportedType {
        tensor: String,
        id: u32,
        /// What is known of that id.
        what: &'static str,
    },

    /// The number of a tensor's elements or bytes exceeds 64 bits.
    #[error("tensor {tensor:?} of shape {shape:?} is too large to exist")]
    ShapeOverflow { tensor: String, shape: Vec<u64> },

    /// A row is not a whole number of the type's blocks.
    #[error(
        "tensor {tensor:?} has rows of {row_len}, not a multiple of the {block_len} in a {ggml_type} block"
    )]
    PartialBlock { tensor: String, ggml_type: GgmlType, row_len: u64, block_len: u64 },

    /// A tensor's offset (from the start of the data section) is not a multiple of the alignment.
    #[error("tensor {tensor:?} has offset {offset}, not a multiple of the file's alignment of {alignment}")]
    Misaligned { tensor: String, offset: u64, alignment: u64 },

    /// A tensor ends past the end of the file. `offset` is from the start of the data section.
    #[error(
        "tensor {tensor:?} needs {n_bytes} bytes at offset {offset} of the data, which start at {data_start}, \
         but the file has {file_bytes}; it is damaged or was not downloaded completely"
    )]
    OutsideFile { tensor: String, offset: u64, n_bytes: u64, data_start: u64, file_bytes: u64 },

    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap { first: String, second: String },

    /// The number of shards given is not the number that the model was split into.
    #[error("the model was split into {declared} files, but {found} are given")]
    ShardCount { declared: u64, found: u64 },

    /// A shard is not the one that its place asks for (both count from 0).
    #[error("the file at place {place} of a split model says that it is number {found}")]
    ShardNumber { place: u64, found: u64 },

    /// The shards together have another number of tensors than they declare.
    #[error("the split model should have {declared} tensors, but its files have {found}")]
    ShardTensors { declared: u64, found: u64 },

    /// A shard's byte order differs from the first one's.
    #[error("shard {shard} is {found}, unlike the first one")]
    ShardByteOrder { shard: u64, found: ByteOrder },

    /// An index is applied to bytes of another length, or to another number of files, than it was made from.
    #[error("the index of a file of {expected} bytes is applied to {found} bytes (file {shard})")]
    WrongBytes { shard: u64, expected: u64, found: u64 },

    /// An array to write holds an element of another type than its own.
    #[error("an array of {expected} is given a {found}")]
    MixedArray { expected: &'static str, found: &'static str },

    /// Data are written for a tensor other than the next one declared.
    #[error("data are given for tensor {found:?}, but {} is next", expected.as_deref().unwrap_or("no tensor"))]
    TensorOrder { expected: Option<String>, found: String },

    /// A tensor is given more or fewer bytes than its type and shape need.
    #[error("tensor {tensor:?} needs {expected} bytes, but {found} are given")]
    TensorBytes { tensor: String, expected: u64, found: u64 },
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Fills in the tensor, for what [`GgmlType::from_id`] can't know.
    pub(crate) fn of_tensor(self, name: &str) -> Self {
        match self {
            Error::UnsupportedType { id, what, .. } => {
                Error::UnsupportedType { tensor: name.to_owned(), id, what }
            }
            other => other,
        }
    }
}
