//! What parsing learns about a model, without its bytes: where each key, value and tensor is.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::cursor::{ByteOrder, Encoding};
use crate::error::{Error, Result};
use crate::reader::Gguf;
use crate::tensor::{TensorInfo, text};
use crate::value::{Value, ValueType};

/// One file's header.
#[derive(Clone, Debug)]
pub(crate) struct FileInfo {
    pub(crate) version: u32,
    pub(crate) byte_order: ByteOrder,
    pub(crate) alignment: u64,
    pub(crate) n_bytes: usize,
}

/// One metadata key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Range<usize>,
    pub(crate) value_type: ValueType,
    pub(crate) value: Range<usize>,
    pub(crate) encoding: Encoding,
}

impl Entry {
    pub(crate) fn key<'a>(&self, file: &'a [u8]) -> &'a str {
        text(file, &self.key)
    }

    pub(crate) fn value<'a>(&self, file: &'a [u8]) -> Option<Value<'a>> {
        let bytes = file.get(self.value.clone())?;
        Value::decode(bytes, self.encoding, self.key(file), self.value_type)
    }
}

/// Positions in the list of the same things, by name.
pub(crate) type ByName = HashMap<Box<str>, usize>;

#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// The first file, then those of the other shards.
    pub(crate) first: FileInfo,
    pub(crate) others: Vec<FileInfo>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) keys: ByName,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) names: ByName,
}

impl Index {
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(*self.keys.get(key)?)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &FileInfo> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// What [`Gguf::parse`] found, to be applied again to the same bytes without reading them.
///
/// For an owner of maps that can't also store the [`Gguf`] that borrows them: it parses once, keeps the
/// index, and makes a view whenever one is wanted.
///
/// ```
/// # use metallic_gguf::{Gguf, GgufIndex, Result};
/// struct Owner {
///     bytes: Vec<u8>,
///     index: GgufIndex,
/// }
///
/// impl Owner {
///     fn new(bytes: Vec<u8>) -> Result<Self> {
///         let index = Gguf::parse(&bytes)?.index();
///         Ok(Owner { bytes, index })
///     }
///
///     fn gguf(&self) -> Result<Gguf<'_>> {
///         self.index.view([&self.bytes[..]])
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct GgufIndex(pub(crate) Arc<Index>);

impl GgufIndex {
    /// The model in these files: one, or all shards in order. Takes time and memory by the number of
    /// files, not by what is in them.
    ///
    /// The bytes must be those that were parsed. Only their number is checked, which keeps every range
    /// inside them; other bytes of the same length give wrong values, never a panic.
    ///
    /// # Errors
    /// [`Error::WrongBytes`] if a file has another length than the one parsed, [`Error::ShardCount`] if
    /// there are more or fewer files.
    pub fn view<'a>(&self, files: impl IntoIterator<Item = &'a [u8]>) -> Result<Gguf<'a>> {
        let files: Arc<[&[u8]]> = files.into_iter().collect();
        let declared = self.0.files().count();
        if files.len() != declared {
            return Err(Error::ShardCount { declared: declared as u64, found: files.len() as u64 });
        }
        for (shard, (info, file)) in self.0.files().zip(files.iter()).enumerate() {
            if info.n_bytes != file.len() {
                return Err(Error::WrongBytes {
                    shard: shard as u64,
                    expected: info.n_bytes as u64,
                    found: file.len() as u64,
                });
            }
        }
        Ok(Gguf { index: self.0.clone(), files })
    }
}
