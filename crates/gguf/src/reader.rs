//! Bytes to a validated model, in one pass over the header, the metadata and the tensor directory.
//!
//! Nothing is reserved by a count from the file: lists grow as their entries turn out to be there, so
//! memory is bounded by what was read.

use std::collections::hash_map;
use std::fmt;
use std::sync::Arc;

use crate::cursor::{ByteOrder, Cursor, Encoding, Place};
use crate::error::{Error, Result};
use crate::ggml_type::GgmlType;
use crate::index::{ByName, Entry, FileInfo, GgufIndex, Index};
use crate::metadata::{FromValue, Metadata};
use crate::tensor::{Geometry, MAX_DIMS, MAX_TENSOR_NAME_BYTES, Tensor, TensorInfo};
use crate::value::{Value, ValueType};

/// The longest metadata key that the format allows.
pub const MAX_KEY_BYTES: u64 = 65_535;

/// The largest alignment: beyond the largest pages and disk blocks it has no use, and padding to it would
/// let a file of a few bytes ask for a lot of room.
pub const MAX_ALIGNMENT: u64 = 1 << 20;

/// The alignment of a file that doesn't state one.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The key of the alignment, an integer.
pub const ALIGNMENT_KEY: &str = "general.alignment";

pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

/// A validated model: metadata and tensor views over the bytes of one file, or of all shards of one that
/// was split. Cloning is cheap.
#[derive(Clone)]
pub struct Gguf<'a> {
    pub(crate) index: Arc<Index>,
    /// As many as the index has, each of the length parsed.
    pub(crate) files: Arc<[&'a [u8]]>,
}

impl<'a> Gguf<'a> {
    /// Reads and checks one file. A shard of a split model parses on its own; [`split::join`](crate::split::join)
    /// puts the shards together.
    ///
    /// Afterwards every tensor's data are inside the file, aligned, shared with no other tensor, and exactly
    /// as many bytes as its type and shape take. Takes time and memory by the size of the header and the
    /// directory; tensor data are not touched.
    ///
    /// # Errors
    /// Each way of being malformed is a variant of [`Error`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        Ok(Gguf { index: Arc::new(parse(bytes)?), files: Arc::new([bytes]) })
    }

    /// What was learnt, to make this view again later without parsing.
    pub fn index(&self) -> GgufIndex {
        GgufIndex(self.index.clone())
    }

    /// The version of the format: 1, 2 or 3. Of a split model, like the other properties of the file, the
    /// first shard's.
    pub fn version(&self) -> u32 {
        self.index.first.version
    }

    /// The byte order of every number, those inside tensor data included.
    pub fn byte_order(&self) -> ByteOrder {
        self.index.first.byte_order
    }

    /// What the offset of every tensor is a multiple of, in bytes.
    pub fn alignment(&self) -> u64 {
        self.index.first.alignment
    }

    /// The metadata; of a split model, those of the first shard.
    pub fn metadata(&self) -> Metadata<'a> {
        Metadata { index: self.index.clone(), bytes: self.files.first().copied().unwrap_or_default() }
    }

    /// Every tensor, in the order of the directory (shard after shard).
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'a>> + use<'_, 'a> {
        self.index.tensors.iter().map(|info| self.view(info))
    }

    /// The tensor of a name, found in constant time.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'a>> {
        let info = self.index.tensors.get(*self.index.names.get(name)?)?;
        Some(self.view(info))
    }

    /// The number of files that the model is in.
    pub fn n_shards(&self) -> usize {
        self.files.len()
    }

    fn view(&self, info: &TensorInfo) -> Tensor<'a> {
        info.view(self.files.get(info.shard).copied().unwrap_or_default(), self.byte_order())
    }
}

impl fmt::Debug for Gguf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version())
            .field("byte_order", &self.byte_order())
            .field("alignment", &self.alignment())
            .field("n_shards", &self.n_shards())
            .field("n_keys", &self.index.entries.len())
            .field("n_tensors", &self.index.tensors.len())
            .finish()
    }
}

fn parse(bytes: &[u8]) -> Result<Index> {
    let (version, mut cursor) = read_version(bytes)?;
    let encoding = cursor.encoding;
    let n_tensors = read_count(&mut cursor, "tensors", 2 * 4 + 8)?;
    let n_entries = read_count(&mut cursor, "metadata keys", 4 + 1)?;
    let (entries, keys) = read_entries(&mut cursor, n_entries)?;
    let alignment = match keys.get(ALIGNMENT_KEY).and_then(|&at| entries.get(at)?.value(bytes)) {
        Some(value) => check_alignment(u64::from_value(ALIGNMENT_KEY, value)?)?,
        None => DEFAULT_ALIGNMENT,
    };
    let mut directory = Vec::new();
    for index in 0..n_tensors {
        cursor.place = Place::TensorInfo(index);
        directory.push(read_tensor(&mut cursor, index)?);
    }
    // The position is within the bytes, so rounding it up by at most 1 MiB can't wrap.
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    let section = DataSection { start: data_start, alignment, file_bytes: bytes.len() as u64 };
    let mut names = ByName::new();
    let mut tensors = Vec::new();
    for (at, declared) in directory.into_iter().enumerate() {
        let tensor = || declared.name.to_owned();
        insert_unique(&mut names, declared.name, at)
            .ok_or_else(|| Error::DuplicateTensor { tensor: tensor() })?;
        tensors.push(section.place(declared)?);
    }
    check_disjoint(&tensors, bytes)?;
    let first = FileInfo { version, byte_order: encoding.byte_order, alignment, n_bytes: bytes.len() };
    Ok(Index { first, others: Vec::new(), entries, keys, tensors, names })
}

/// Checks the magic, and finds the byte order by the version: no flag says it, but read in the wrong order
/// every known version has zeros in its low half.
fn read_version(bytes: &[u8]) -> Result<(u32, Cursor<'_>)> {
    let mut cursor = Cursor::new(bytes, Encoding::NEWEST, Place::Header);
    let found = cursor.take(MAGIC.len() as u64)?;
    if found != MAGIC {
        return Err(Error::NotGguf { found: found.to_vec(), hint: describe_other_kind(bytes) });
    }
    let mut version = cursor.u32()?;
    if version.trailing_zeros() >= 16 {
        version = version.swap_bytes();
        cursor.encoding.byte_order = ByteOrder::Big;
    }
    if !(1..=3).contains(&version) {
        return Err(Error::UnsupportedVersion { version });
    }
    cursor.encoding.wide = version > 1;
    Ok((version, cursor))
}

fn describe_other_kind(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'l', b'm', b'g', b'g', ..] | [b't' | b'f', b'j' | b'm', b'g', b'g', ..] => {
            ", a model format from before GGUF: convert the model again"
        }
        [_, _, _, _, 0, 0, 0, 0, b'{', ..] => ", perhaps a safetensors file: convert it to GGUF",
        [b'P', b'K', 3, 4, ..] => ", a zip archive, perhaps a PyTorch checkpoint: convert it to GGUF",
        [b'v', b'e', b'r', b's', ..] => {
            ", perhaps a Git LFS pointer: fetch the file itself with git lfs pull"
        }
        [b'<', ..] => ", perhaps a web page saved in place of the model",
        _ => "",
    }
}

/// Reads how many things there are, each of which takes a string and at least `min_bytes` more.
fn read_count(cursor: &mut Cursor<'_>, what: &'static str, min_bytes: u64) -> Result<u64> {
    let (count, available) = (cursor.length()?, cursor.remaining());
    if count > available / (cursor.encoding.length_bytes() + min_bytes) {
        return Err(Error::CountTooLarge { what, count, available });
    }
    Ok(count)
}

fn read_entries(cursor: &mut Cursor<'_>, n_entries: u64) -> Result<(Vec<Entry>, ByName)> {
    let mut entries = Vec::new();
    let mut keys = ByName::new();
    for index in 0..n_entries {
        cursor.place = Place::Key(index);
        let key = read_key(cursor, index)?;
        let key_end = cursor.position();
        cursor.place = Place::Value(key);
        let id = cursor.u32()?;
        let value_type =
            ValueType::from_id(id).ok_or_else(|| Error::UnknownValueType { key: key.to_owned(), id })?;
        let value_start = cursor.position();
        Value::read(cursor, key, value_type, 0)?;
        insert_unique(&mut keys, key, entries.len())
            .ok_or_else(|| Error::DuplicateKey { key: key.to_owned() })?;
        entries.push(Entry {
            key: key_end - key.len()..key_end,
            value_type,
            value: value_start..cursor.position(),
            encoding: cursor.encoding,
        });
    }
    Ok((entries, keys))
}

fn read_key<'a>(cursor: &mut Cursor<'a>, index: u64) -> Result<&'a str> {
    let key = cursor.string()?;
    check_key(key.len() as u64, index)?;
    std::str::from_utf8(key).map_err(|_| Error::KeyNotUtf8 { index })
}

/// Checks the length of the key at a place.
pub(crate) fn check_key(bytes: u64, index: u64) -> Result<()> {
    match bytes {
        0 => Err(Error::EmptyKey { index }),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => Err(Error::KeyTooLong { index, bytes, limit: MAX_KEY_BYTES }),
    }
}

pub(crate) fn check_alignment(alignment: u64) -> Result<u64> {
    if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT {
        Ok(alignment)
    } else {
        Err(Error::BadAlignment { alignment, limit: MAX_ALIGNMENT })
    }
}

/// `None` if the name is taken.
pub(crate) fn insert_unique(names: &mut ByName, name: &str, at: usize) -> Option<()> {
    match names.entry(name.into()) {
        hash_map::Entry::Occupied(_) => None,
        hash_map::Entry::Vacant(free) => {
            free.insert(at);
            Some(())
        }
    }
}

/// What the directory says of a tensor, before its place is known to be right.
struct Declared<'a> {
    name: &'a str,
    name_end: usize,
    geometry: Geometry,
    /// From the start of the data section.
    offset: u64,
}

fn read_tensor<'a>(cursor: &mut Cursor<'a>, index: u64) -> Result<Declared<'a>> {
    let name = check_tensor_name(cursor.string()?, index)?;
    let name_end = cursor.position();
    let n_dims = cursor.u32()?;
    let mut dims = [0; MAX_DIMS];
    let shape = usize::try_from(n_dims).ok().and_then(|n| dims.get_mut(..n)).ok_or_else(|| {
        Error::TooManyDims { tensor: name.to_owned(), n_dims: n_dims.into(), limit: MAX_DIMS as u64 }
    })?;
    for dim in shape.iter_mut() {
        *dim = cursor.length()?;
    }
    let ggml_type = GgmlType::from_id(cursor.u32()?).map_err(|e| e.of_tensor(name))?;
    let geometry = Geometry::new(name, ggml_type, shape)?;
    Ok(Declared { name, name_end, geometry, offset: cursor.u64()? })
}

pub(crate) fn check_tensor_name(name: &[u8], index: u64) -> Result<&str> {
    let bytes = name.len() as u64;
    if bytes > MAX_TENSOR_NAME_BYTES {
        return Err(Error::TensorNameTooLong { index, bytes, limit: MAX_TENSOR_NAME_BYTES });
    }
    let text = std::str::from_utf8(name).ok().filter(|name| !name.contains('\0'));
    text.ok_or_else(|| Error::TensorNameNotText { index, name: name.to_vec() })
}

struct DataSection {
    start: u64,
    alignment: u64,
    file_bytes: u64,
}

impl DataSection {
    /// Checks that a tensor's bytes are where they can be.
    fn place(&self, declared: Declared<'_>) -> Result<TensorInfo> {
        let Declared { name, name_end, geometry, offset } = declared;
        let (tensor, alignment) = (|| name.to_owned(), self.alignment);
        if !offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned { tensor: tensor(), offset, alignment });
        }
        let outside = || Error::OutsideFile {
            tensor: tensor(),
            offset,
            n_bytes: geometry.n_bytes,
            data_start: self.start,
            file_bytes: self.file_bytes,
        };
        let start = self.start.checked_add(offset).ok_or_else(outside)?;
        let end = start.checked_add(geometry.n_bytes).ok_or_else(outside)?;
        // Padding at the end of the file may be missing, and a tensor without bytes may follow it.
        let missing = if geometry.n_bytes == 0 { alignment - 1 } else { 0 };
        if end > self.file_bytes.saturating_add(missing) {
            return Err(outside());
        }
        let in_file = |at: u64| usize::try_from(at.min(self.file_bytes)).map_err(|_| outside());
        let data = in_file(start)?..in_file(end)?;
        Ok(TensorInfo { name: name_end - name.len()..name_end, geometry, shard: 0, data })
    }
}

/// Checks that no two tensors share bytes. Gaps and any order are accepted.
fn check_disjoint(tensors: &[TensorInfo], file: &[u8]) -> Result<()> {
    let mut by_start: Vec<&TensorInfo> = tensors.iter().filter(|tensor| !tensor.data.is_empty()).collect();
    by_start.sort_by_key(|tensor| tensor.data.start);
    for pair in by_start.windows(2) {
        if let [first, second] = pair
            && first.data.end > second.data.start
        {
            return Err(Error::Overlap {
                first: first.name(file).to_owned(),
                second: second.name(file).to_owned(),
            });
        }
    }
    Ok(())
}
