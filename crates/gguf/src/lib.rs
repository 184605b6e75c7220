//! The GGUF model file format: a reader that copies nothing and panics on nothing, and a writer.
//!
//! [`Gguf::parse`] checks a whole file once; after that, [metadata](Metadata) and [tensors](Tensor) are
//! views of its bytes that need no further checks. The format is described at
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Versions 1 to 3 are read, in both byte
//! orders; the data of tensors are lent as they are in the file.
//!
//! The crate knows bytes, not files: whoever maps a file keeps the map and a [`GgufIndex`], and makes a
//! [`Gguf`] whenever one is wanted. [`split::join`] puts a model in several files together, [`GgufWriter`]
//! writes one.
//!
//! ```
//! # use metallic_gguf::{Gguf, Result};
//! fn describe(bytes: &[u8]) -> Result<()> {
//!     let model = Gguf::parse(bytes)?;
//!     let architecture: &str = model.metadata().required("general.architecture")?;
//!     println!("{architecture}, {} tensors", model.tensors().len());
//!     for tensor in model.tensors() {
//!         println!("{} {} {:?}", tensor.name(), tensor.ggml_type(), tensor.shape());
//!     }
//!     Ok(())
//! }
//! ```
#![forbid(unsafe_code)]
mod cursor;
mod encode;
mod error;
mod ggml_type;
mod index;
mod metadata;
mod reader;
pub mod split;
mod tensor;
mod value;
mod writer;

pub use cursor::ByteOrder;
pub use encode::ArrayBuf;
pub use error::{Error, Result};
pub use ggml_type::GgmlType;
pub use index::GgufIndex;
pub use metadata::{FromValue, MAX_LAYERS, Metadata};
pub use reader::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Gguf, MAX_ALIGNMENT, MAX_KEY_BYTES};
pub use tensor::{MAX_DIMS, MAX_TENSOR_NAME_BYTES, Tensor};
pub use value::{Array, ArrayIter, MAX_ARRAY_DEPTH, Value, ValueType};
pub use writer::{GgufWriter, TensorWriter};
