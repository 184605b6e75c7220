//! Writing files: first everything about the tensors, then their data, streamed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use crate::cursor::{Cursor, Encoding, Place};
use crate::encode::encode_string;
use crate::error::{Error, Result};
use crate::ggml_type::GgmlType;
use crate::index::ByName;
use crate::metadata::FromValue;
use crate::reader::{
    ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT, check_alignment, check_key, check_tensor_name,
    insert_unique,
};
use crate::split;
use crate::tensor::Geometry;
use crate::value::Value;

/// The version written: the newest.
const VERSION: u32 = 3;

/// The most bytes of data and padding that tensors may be declared to have: what a file offset can say, so
/// that no position wraps.
const MAX_DATA_BYTES: u64 = i64::MAX as u64;

/// A file to write: its metadata and its tensors' names, types and shapes. The data follow, through
/// [`begin`](GgufWriter::begin).
///
/// What is written is little-endian version 3, and passes [`Gguf::parse`](crate::Gguf::parse).
///
/// ```
/// use metallic_gguf::{ArrayBuf, Gguf, GgmlType, GgufWriter, ValueType};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut file = GgufWriter::new();
/// file.set("general.architecture", "llama")?;
/// file.set("llama.block_count", 1_u32)?;
/// file.set("tokenizer.ggml.tokens", &ArrayBuf::new(ValueType::String, ["a", "b"])?)?;
/// file.tensor("token_embd.weight", GgmlType::F32, &[2, 1])?;
///
/// let mut data = file.begin(Vec::new())?;
/// for weight in [0.5_f32, -1.0] {
///     data.write("token_embd.weight", &weight.to_le_bytes())?;
/// }
/// let bytes = data.finish()?;
///
/// let model = Gguf::parse(&bytes)?;
/// assert_eq!(model.tensor("token_embd.weight").map(|t| t.n_bytes()), Some(8));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct GgufWriter {
    alignment: u64,
    keys: ByName,
    /// Every key, value type and value, encoded.
    metadata: Vec<u8>,
    names: ByName,
    tensors: Vec<Planned>,
    /// Of all tensors, with room for any padding.
    data_bytes: u64,
}

#[derive(Clone, Debug)]
struct Planned {
    name: String,
    geometry: Geometry,
}

impl Default for GgufWriter {
    fn default() -> Self {
        GgufWriter {
            alignment: DEFAULT_ALIGNMENT,
            keys: ByName::new(),
            metadata: Vec::new(),
            names: ByName::new(),
            tensors: Vec::new(),
            data_bytes: 0,
        }
    }
}

impl GgufWriter {
    /// A file with neither metadata nor tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key. The type of the Rust value is the type written, so say `3_u32` rather than `3`.
    /// `general.alignment` takes effect on the whole file, and is always written as `u32`.
    ///
    /// # Errors
    /// What [`Gguf::parse`](crate::Gguf::parse) would say of the key or the value.
    pub fn set<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> Result<&mut Self> {
        let (mut value, mut alignment) = (value.into(), self.alignment);
        check_key(key.len() as u64, self.keys.len() as u64)?;
        if key == ALIGNMENT_KEY {
            let stated = u32::from_value(key, value)?;
            alignment = check_alignment(stated.into())?;
            value = stated.into();
        }
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        // The reader's own check, for instance of the depth of nested arrays.
        let mut cursor = Cursor::new(&encoded, Encoding::NEWEST, Place::Value(key));
        Value::read(&mut cursor, key, value.value_type(), 0)?;
        let at = self.keys.len();
        insert_unique(&mut self.keys, key, at).ok_or_else(|| Error::DuplicateKey { key: key.to_owned() })?;
        self.alignment = alignment;
        encode_string(key.as_bytes(), &mut self.metadata);
        self.metadata.extend(value.value_type().id().to_le_bytes());
        self.metadata.append(&mut encoded);
        Ok(self)
    }

    /// Declares the next tensor; `shape` has the fastest dimension first.
    ///
    /// # Errors
    /// What [`Gguf::parse`](crate::Gguf::parse) would say of the name or the shape;
    /// [`Error::ShapeOverflow`] also if the tensors together are too large to exist.
    pub fn tensor(&mut self, name: &str, ggml_type: GgmlType, shape: &[u64]) -> Result<&mut Self> {
        check_tensor_name(name.as_bytes(), self.tensors.len() as u64)?;
        let geometry = Geometry::new(name, ggml_type, shape)?;
        self.push(Planned { name: name.to_owned(), geometry })?;
        Ok(self)
    }

    fn push(&mut self, tensor: Planned) -> Result<()> {
        let Planned { name, geometry } = &tensor;
        let data_bytes = geometry
            .n_bytes
            .checked_add(MAX_ALIGNMENT)
            .and_then(|padded| self.data_bytes.checked_add(padded))
            .filter(|&total| total <= MAX_DATA_BYTES)
            .ok_or_else(|| Error::ShapeOverflow { tensor: name.clone(), shape: geometry.shape().to_vec() })?;
        insert_unique(&mut self.names, name, self.tensors.len())
            .ok_or_else(|| Error::DuplicateTensor { tensor: name.clone() })?;
        self.data_bytes = data_bytes;
        self.tensors.push(tensor);
        Ok(())
    }

    /// The number of tensors declared.
    pub fn n_tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Divides the file into shards whose tensors take at most `max_bytes` each, except that a shard has at
    /// least one tensor. The first gets all metadata. Write shard `no` under the name that
    /// [`split::shard_name`] gives. A file that needs no dividing is returned as it is.
    ///
    /// # Errors
    /// [`Error::DuplicateKey`] if the metadata have `split.` keys already, [`Error::OutOfRange`] if there
    /// would be more shards or tensors than those keys can count.
    pub fn split(mut self, max_bytes: u64) -> Result<Vec<GgufWriter>> {
        let n_tensors: i32 = narrow(split::N_TENSORS_KEY, self.tensors.len())?;
        let groups = group(std::mem::take(&mut self.tensors), self.alignment, max_bytes);
        let count: u16 = narrow(split::COUNT_KEY, groups.len())?;
        let mut later = GgufWriter::new();
        later.set(ALIGNMENT_KEY, self.alignment)?;
        let first = GgufWriter { names: ByName::new(), data_bytes: 0, ..self }; // its tensors are in `groups`
        let mut shards = vec![later; groups.len()];
        if let Some(shard) = shards.first_mut() {
            *shard = first;
        }
        for (no, (shard, tensors)) in (0..count).zip(shards.iter_mut().zip(groups)) {
            tensors.into_iter().try_for_each(|tensor| shard.push(tensor))?;
            if count > 1 {
                shard.set(split::NO_KEY, no)?.set(split::COUNT_KEY, count)?;
                shard.set(split::N_TENSORS_KEY, n_tensors)?;
            }
        }
        Ok(shards)
    }

    /// Writes everything but the tensors' data, which the writer returned takes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin<W: Write>(self, mut out: W) -> io::Result<TensorWriter<W>> {
        let mut header = MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.keys.len() as u64).to_le_bytes());
        header.extend(&self.metadata);
        let mut offset = 0_u64;
        for Planned { name, geometry } in &self.tensors {
            encode_string(name.as_bytes(), &mut header);
            header.extend((geometry.shape().len() as u32).to_le_bytes());
            header.extend(geometry.shape().iter().flat_map(|dim| dim.to_le_bytes()));
            header.extend(geometry.ggml_type.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            // Neither this nor any position in the file can wrap: `push` checked the sum.
            offset = (offset + geometry.n_bytes).next_multiple_of(self.alignment);
        }
        out.write_all(&header)?;
        pad(&mut out, header.len() as u64, self.alignment)?;
        Ok(TensorWriter { out, alignment: self.alignment, tensors: self.tensors.into(), written: 0 })
    }
}

/// Tensors in runs of at most `max_bytes` with padding, none empty unless there are no tensors at all.
fn group(tensors: Vec<Planned>, alignment: u64, max_bytes: u64) -> Vec<Vec<Planned>> {
    let mut groups = Vec::new();
    let (mut group, mut group_bytes) = (Vec::new(), 0);
    for tensor in tensors {
        let n_bytes = tensor.geometry.n_bytes.next_multiple_of(alignment);
        if !group.is_empty() && group_bytes + n_bytes > max_bytes {
            groups.push(std::mem::take(&mut group));
            group_bytes = 0;
        }
        group_bytes += n_bytes;
        group.push(tensor);
    }
    groups.push(group);
    groups
}

fn narrow<T: TryFrom<usize>>(key: &str, count: usize) -> Result<T> {
    T::try_from(count).map_err(|_| Error::OutOfRange {
        key: key.to_owned(),
        value: count.to_string(),
        target: std::any::type_name::<T>(),
    })
}

fn pad(out: &mut impl Write, written: u64, alignment: u64) -> io::Result<()> {
    let n_bytes = written.next_multiple_of(alignment) - written;
    io::copy(&mut io::repeat(0).take(n_bytes), out).map(drop)
}

/// Takes the tensors' data, in the order declared, and adds the padding.
#[derive(Debug)]
pub struct TensorWriter<W> {
    out: W,
    alignment: u64,
    /// Those not complete.
    tensors: VecDeque<Planned>,
    /// Bytes of the first of them.
    written: u64,
}

impl<W: Write> TensorWriter<W> {
    /// Writes some of a tensor's data. A tensor may take many calls; one of zero size needs none.
    ///
    /// # Errors
    /// Those of the output. With kind `InvalidInput` and an [`Error`] inside: [`Error::TensorOrder`] if it is
    /// another tensor's turn, [`Error::TensorBytes`] if the tensor is given more than its size.
    pub fn write(&mut self, tensor: &str, bytes: &[u8]) -> io::Result<()> {
        while self.tensors.pop_front_if(|next| next.geometry.n_bytes == 0 && next.name != tensor).is_some() {}
        let next = self.tensors.front().filter(|next| next.name == tensor).ok_or_else(|| {
            let expected = self.tensors.front().map(|next| next.name.clone());
            invalid(Error::TensorOrder { expected, found: tensor.to_owned() })
        })?;
        let expected = next.geometry.n_bytes;
        let found = self.written.saturating_add(bytes.len() as u64);
        if found > expected {
            return Err(invalid(Error::TensorBytes { tensor: tensor.to_owned(), expected, found }));
        }
        self.out.write_all(bytes)?;
        self.written = found;
        if found == expected {
            pad(&mut self.out, expected, self.alignment)?;
            self.tensors.pop_front();
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and gives the output back.
    ///
    /// # Errors
    /// Those of the output; [`Error::TensorBytes`] (kind `InvalidInput`) if data are missing.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(missing) = self.tensors.iter().find(|tensor| tensor.geometry.n_bytes > 0) {
            return Err(invalid(Error::TensorBytes {
                tensor: missing.name.clone(),
                expected: missing.geometry.n_bytes,
                found: self.written,
            }));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
