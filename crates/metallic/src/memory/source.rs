//! Model files as bytes, shared: mapped, or read into memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use metallic_gguf::{ByteOrder, Gguf, GgufIndex, Tensor, split};
use metallic_kernels::{Isa, registry};
use sha2::{Digest as _, Sha256};

use super::file_stamp::FileStamp;
use super::ledger::Tier;
use super::matrix::{MatrixBytes, MatrixData};
use super::reader::{FileRange, ModelFiles};
use super::slab;
use crate::error::{Error, Result};

/// Bytes of a tensor, before and after each of some places, that a digest is of.
const SAMPLE: usize = 32;

/// A GGUF model: the maps of all its shards, and what parsing them proved.
///
/// The files must not be changed or truncated while they are mapped: as with every map, the process would
/// read the new bytes, or be stopped by a bus error. The engine looks before each request and after each answer
/// whether they were; a program may also have [last words](GgufFile::exit_on_bus_error).
pub struct GgufFile {
    path: PathBuf,
    shards: Vec<Shard>,
    index: GgufIndex,
}

/// One file of a model.
struct Shard {
    path: PathBuf,
    /// The file when it was mapped.
    stamp: FileStamp,
    map: Arc<Mmap>,
    /// All of the map, or a copy in memory of its own.
    bytes: SharedBytes,
}

impl GgufFile {
    /// Maps and parses a model. Of a split model, `path` may be any shard: the others are found by name, in
    /// the same folder. A file that says it is whole is, whatever its name.
    ///
    /// # Errors
    /// [`Error::Open`] names a file that can't be read, [`Error::Format`] one that is malformed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let alone = Self::open_alone(path)?;
        let malformed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Format { path, source }
        };
        if split::is_whole(&alone.gguf()).map_err(malformed(path))? {
            return Ok(alone);
        }
        let paths = shard_paths(path);
        let shards = paths.into_iter().map(Shard::map).collect::<Result<Vec<_>>>()?;
        let index = {
            let parsed = shards.iter().map(|shard| Gguf::parse(&shard.bytes).map_err(malformed(&shard.path)));
            split::join(parsed.collect::<Result<_>>()?).map_err(malformed(path))?.index()
        };
        Ok(Self { path: path.to_owned(), shards, index })
    }

    /// Maps and parses one file by itself, even if it is a shard of a model. Enough to look at, not to run.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn open_alone(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let shard = Shard::map(path.clone())?;
        let parsed = Gguf::parse(&shard.bytes).map(|gguf| gguf.index());
        match parsed {
            Ok(index) => Ok(Self { path, shards: vec![shard], index }),
            Err(source) => Err(Error::Format { path, source }),
        }
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Metadata and tensors.
    pub fn gguf(&self) -> Gguf<'_> {
        let files = self.shards.iter().map(|shard| &shard.bytes[..]);
        self.index.view(files).expect("the maps that were parsed")
    }

    /// A SHA-256 in hexadecimal that copies of the model have as well, and other models have not: of all that is before the
    /// tensors of each file, and of some bytes of each tensor.
    pub fn digest(&self) -> String {
        let gguf = self.gguf();
        let mut begins: Vec<usize> = self.shards.iter().map(|shard| shard.bytes.len()).collect();
        let mut hasher = Sha256::new();
        for tensor in gguf.tensors() {
            let (data, begin) = (tensor.data(), &mut begins[tensor.shard()]);
            *begin = (*begin).min(tensor.file_offset() as usize);
            for at in [0, data.len() / 2, data.len()] {
                hasher.update(&data[at.saturating_sub(SAMPLE)..data.len().min(at + SAMPLE)]);
            }
        }
        for (shard, begin) in self.shards.iter().zip(begins) {
            hasher.update(&shard.bytes[..begin]);
        }
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The files: of a split model, all shards in order.
    pub fn shard_paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Looks whether the files are still what they were when they were mapped.
    ///
    /// # Errors
    /// [`Error::FileChanged`], for the first that is not.
    pub fn check_unchanged(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.stamp.check())
    }

    /// The files as they were when they were mapped.
    pub(crate) fn stamps(&self) -> Vec<FileStamp> {
        self.shards.iter().map(|shard| shard.stamp.clone()).collect()
    }

    /// Each file with its bytes.
    #[cfg(unix)]
    pub(super) fn maps(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.shards.iter().map(|shard| (shard.path.as_path(), &shard.bytes[..]))
    }

    /// Bytes of each file.
    pub(super) fn shard_bytes(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|shard| shard.bytes.len() as u64)
    }

    /// Bytes of all files.
    pub fn n_bytes(&self) -> u64 {
        self.shard_bytes().sum()
    }

    /// A tensor of this file as a matrix, in little-endian order: where it lies in the file, or swapped into
    /// a copy if the file is big-endian. Dimensions after the first count as rows.
    ///
    /// # Errors
    /// A size beyond the address space, or no memory for the copy.
    pub fn matrix(&self, tensor: &Tensor<'_>) -> Result<MatrixData> {
        let size = |n: u64| usize::try_from(n).map_err(|_| Error::TooLarge { what: "a tensor" });
        let (row_len, n_rows) = (size(tensor.row_len())?, size(tensor.n_rows())?);
        let bytes = MatrixBytes::in_memory(self.bytes(tensor)?);
        Ok(MatrixData { ggml_type: tensor.ggml_type(), row_len, n_rows, bytes })
    }

    /// The bytes of a tensor in little-endian order; see [`GgufFile::matrix`].
    fn bytes(&self, tensor: &Tensor<'_>) -> Result<SharedBytes> {
        let what = "a tensor";
        Ok(match tensor.byte_order() {
            ByteOrder::Little => {
                let FileRange { shard, offset, n_bytes } = Self::range(tensor)?;
                let start = usize::try_from(offset).map_err(|_| Error::TooLarge { what })?;
                let range = start..start + n_bytes;
                self.shards[shard].bytes.slice(range)
            }
            ByteOrder::Big => {
                let mut copy = Vec::new();
                let out_of_memory = |_| Error::OutOfMemory { what, bytes: tensor.n_bytes() };
                copy.try_reserve_exact(tensor.data().len()).map_err(out_of_memory)?;
                copy.extend_from_slice(tensor.data());
                (registry::ops(tensor.ggml_type(), Isa::Scalar).swap_bytes)(&mut copy);
                SharedBytes::new(copy)
            }
        })
    }

    /// Where a tensor lies.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn range(tensor: &Tensor<'_>) -> Result<FileRange> {
        let n_bytes = tensor.n_bytes().try_into().map_err(|_| Error::TooLarge { what: "a tensor" })?;
        Ok(FileRange { shard: tensor.shard(), offset: tensor.file_offset(), n_bytes })
    }

    /// The files, open for reading past the page cache.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub(crate) fn open_direct(&self) -> Result<ModelFiles> {
        ModelFiles::open(self.shard_paths().map(Path::to_owned).collect())
    }

    /// The elements of a tensor of this file as floats, whatever its type.
    ///
    /// # Errors
    /// As [`GgufFile::matrix`].
    pub fn floats(&self, tensor: &Tensor<'_>) -> Result<Vec<f32>> {
        let bytes = self.bytes(tensor)?;
        let n = usize::try_from(tensor.n_elements()).map_err(|_| Error::TooLarge { what: "a tensor" })?;
        let mut floats = vec![0.0; n];
        (registry::ops(tensor.ggml_type(), Isa::Scalar).decode)(&bytes, &mut floats);
        Ok(floats)
    }

    /// Reads all files into memory, where they are used from then on instead of the maps. `progress` is
    /// called with the bytes of each piece that has arrived.
    ///
    /// # Errors
    /// [`Error::OverBudget`]; [`Error::Read`]: the system's reason, or a file that has changed since it was opened.
    pub(crate) fn read_to_memory(&mut self, ram: &Tier, progress: &mut dyn FnMut(u64)) -> Result<()> {
        for Shard { path, map, bytes, .. } in &mut self.shards {
            let lease = ram.lease("model files", map.len() as u64)?;
            let slab = slab::read(path, map, progress);
            *bytes = SharedBytes::new(
                lease.of(slab.map_err(|source| Error::Read { path: path.clone(), source })?),
            );
        }
        Ok(())
    }

    /// Reads parts of tensors, given by the bytes before them and their length, into memory of their own.
    ///
    /// # Errors
    /// [`Error::Stream`]; no memory.
    pub(crate) fn read_tensors(
        &self,
        ram: &Tier,
        files: &ModelFiles,
        tensors: &[(&str, Range<u64>)],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Resident> {
        let gguf = self.gguf();
        let range = |(name, part): &(&str, Range<u64>)| {
            let tensor = gguf.tensor(name).ok_or_else(|| Error::missing_tensor(name))?;
            let rest = Self::range(&tensor)?.after(part.start as usize);
            Ok(FileRange { n_bytes: (part.end - part.start) as usize, ..rest })
        };
        let ranges = tensors.iter().map(range).collect::<Result<Vec<_>>>()?;
        let (slab, starts) = slab::read_ranges(ram, files, &ranges, progress)?;
        let slab = SharedBytes::new(slab);
        let parts =
            starts.iter().zip(&ranges).map(|(&start, range)| slab.slice(start..start + range.n_bytes));
        Ok(Resident(tensors.iter().map(|(name, _)| (*name).to_owned()).zip(parts).collect()))
    }

    /// Bytes before the tensors' data, in all files.
    pub(crate) fn metadata_bytes(&self) -> u64 {
        let mut first: Vec<u64> = self.shard_bytes().collect();
        for tensor in self.gguf().tensors() {
            let first = &mut first[tensor.shard()];
            *first = (*first).min(tensor.file_offset());
        }
        first.into_iter().sum()
    }

    /// Tells the system that little of the file will be read through its map, so that it does not read ahead.
    pub(crate) fn will_need_little(&self) {
        #[cfg(unix)]
        for shard in &self.shards {
            if let Err(error) = shard.map.advise(memmap2::Advice::Random) {
                tracing::debug!(%error, "readahead of the mapped model");
            }
        }
    }

    /// Tells the system that all of the file will be read soon, so that it reads ahead.
    pub(crate) fn will_need(&self) {
        #[cfg(unix)]
        for shard in &self.shards {
            if let Err(error) = shard.map.advise(memmap2::Advice::WillNeed) {
                tracing::debug!(%error, "no readahead of the mapped model");
            }
        }
    }
}

/// All shards of the model that `path` belongs to, in order; `path` alone if its name is not a shard's.
fn shard_paths(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(split::parse_shard_name);
    match name {
        Some(name) => (0..name.count)
            .map(|no| path.with_file_name(split::shard_name(name.prefix, no, name.count)))
            .collect(),
        None => vec![path.to_owned()],
    }
}

impl Shard {
    fn map(path: PathBuf) -> Result<Self> {
        let open = || {
            // Before opening: to open a pipe waits until somebody writes to it.
            let metadata = std::fs::metadata(&path)?;
            if metadata.is_dir() {
                return Err(std::io::Error::new(ErrorKind::IsADirectory, "it is a directory, not a file"));
            }
            if !metadata.is_file() {
                let what = "it is a device or a pipe, which can't be mapped";
                return Err(std::io::Error::new(ErrorKind::InvalidInput, what));
            }
            let file = File::open(&path)?;
            // SAFETY: the map is private and read-only. That nobody changes the file meanwhile can't be proved
            // here: it is the documented condition of `GgufFile`, as for every program that maps files.
            let map = unsafe { Mmap::map(&file) }?;
            Ok((FileStamp::new(&path, file)?, map))
        };
        match open() {
            Ok((stamp, map)) => {
                let map = Arc::new(map);
                let bytes = SharedBytes { range: 0..map.len(), owner: Arc::clone(&map) as _ };
                Ok(Self { path, stamp, map, bytes })
            }
            Err(source) => Err(Error::Open { path, source }),
        }
    }
}

/// Tensors, or parts of them, that were read into memory, by name.
#[derive(Default)]
pub(crate) struct Resident(HashMap<String, SharedBytes>);

impl Resident {
    pub(crate) fn get(&self, name: &str) -> Option<SharedBytes> {
        self.0.get(name).cloned()
    }
}

/// Bytes that several owners share: part of a mapped file, or a copy.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn Owner>,
    range: Range<usize>,
}

/// What shared bytes belong to.
trait Owner: Send + Sync {
    fn bytes(&self) -> &[u8];
    /// See [`SharedBytes::were_copied`].
    fn were_copied(&self, range: Range<usize>);
}

impl Owner for Mmap {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn were_copied(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is read-only, so that no page of it differs from the file; those that are read again come from there.
            let given_back = unsafe { self.unchecked_advise_range(advice, range.start, range.len()) };
            if let Err(error) = given_back {
                tracing::debug!(%error, "pages of the mapped model are kept");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Memory that is not a map of a file.
struct Memory<T>(T);

impl<T: Deref<Target = [u8]> + Send + Sync> Owner for Memory<T> {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn were_copied(&self, _: Range<usize>) {}
}

impl SharedBytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl Deref<Target = [u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.len();
        Self { owner: Arc::new(Memory(owner)), range }
    }

    /// A part of these bytes.
    ///
    /// # Panics
    /// If `range` reaches past the end.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "a part of the bytes");
        let start = self.range.start;
        Self { owner: Arc::clone(&self.owner), range: start + range.start..start + range.end }
    }

    /// Says that they have been copied and that nothing reads them soon: pages of a map no longer count as the process's
    /// memory.
    pub fn were_copied(&self) {
        self.owner.were_copied(self.range.clone());
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl std::fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.range.len())
    }
}
