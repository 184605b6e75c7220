//! Chunks of weights read into slots, several at a time and in any order.
//!
//! What a slot lies on matters most. A disk writes to memory by its physical pages, and small ones lie scattered: on a
//! virtual machine reads to small pages came at a third of the rate of reads to huge ones, whatever their length and
//! however many were under way. So slots ask for huge pages.

#[cfg(test)]
pub(super) mod fake;
mod threads;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod uring;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::MmapMut;

use super::direct::DirectFile;
use super::ledger::{Leased, Tier};
use super::slab;
use crate::error::{Error, Result};

/// Bytes that a request asks for at most: with several under way disks gain nothing from more.
pub(crate) const MAX_READ_BYTES: usize = 4 << 20;

/// Requests under way: as many as bring disks near to their best. With more, what is wanted first comes with the last.
pub(super) const N_READS: usize = 4;

/// Room for the stack of a thread that reads.
pub(super) const READER_STACK_BYTES: usize = 256 << 10;

/// Consecutive bytes of one of a model's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Which of the files.
    pub shard: usize,
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub n_bytes: usize,
}

impl FileRange {
    /// What follows the first `n_bytes`.
    pub(crate) fn after(self, n_bytes: usize) -> Self {
        Self { offset: self.offset + n_bytes as u64, n_bytes: self.n_bytes - n_bytes, ..self }
    }
}

/// A place to which chunks are read, one after the other.
pub struct Slot {
    memory: Leased<MmapMut>,
    start: usize,
    n_bytes: usize,
}

impl Slot {
    /// Room for any chunk of up to `chunk_bytes`.
    ///
    /// # Errors
    /// [`Error::OverBudget`]; [`Error::OutOfMemory`] if the system refuses.
    pub(super) fn new(ram: &Tier, chunk_bytes: usize) -> Result<Self> {
        let memory = slab::huge_zeros(ram, "a slot for streamed weights", Self::bytes_for(chunk_bytes))?;
        Ok(Self { memory, start: 0, n_bytes: 0 })
    }

    /// Bytes that a slot for chunks of `chunk_bytes` takes.
    pub(super) fn bytes_for(chunk_bytes: usize) -> usize {
        DirectFile::room_for(chunk_bytes)
    }

    /// The chunk that was read last.
    pub fn chunk(&self) -> &[u8] {
        &self.memory[self.start..][..self.n_bytes]
    }

    /// Reads a chunk, and waits for it.
    pub(super) fn fill(&mut self, files: &ModelFiles, range: FileRange) -> io::Result<()> {
        let start = files.read_blocks(range, &mut self.memory)?;
        self.holds(start, range);
        Ok(())
    }

    /// Says that a chunk has been read, and begins at `start`.
    fn holds(&mut self, start: usize, range: FileRange) {
        (self.start, self.n_bytes) = (start, range.n_bytes);
    }
}

/// The files of a model, open for reading past the page cache.
pub(crate) struct ModelFiles {
    paths: Vec<PathBuf>,
    files: Vec<DirectFile>,
}

impl ModelFiles {
    /// # Errors
    /// [`Error::Open`] names the file.
    pub(super) fn open(paths: Vec<PathBuf>) -> Result<Self> {
        let open = |path: &PathBuf| {
            DirectFile::open(path).map_err(|source| Error::Open { path: path.clone(), source })
        };
        let files: Vec<DirectFile> = paths.iter().map(open).collect::<Result<_>>()?;
        files.iter().filter(|file| file.direct.is_none()).for_each(DirectFile::forbid_readahead);
        Ok(Self { paths, files })
    }

    /// The file of a range.
    fn of(&self, range: FileRange) -> &DirectFile {
        &self.files[range.shard]
    }

    /// See [`DirectFile::read_blocks`].
    pub(super) fn read_blocks(&self, range: FileRange, to: &mut [u8]) -> io::Result<usize> {
        self.of(range).read_blocks(range.offset, range.n_bytes, to)
    }

    /// That a range could not be read.
    pub(super) fn error(&self, range: FileRange, source: io::Error) -> Error {
        let FileRange { shard, offset, n_bytes } = range;
        Error::Stream { path: self.paths[shard].clone(), offset, n_bytes, source }
    }

    /// Whether all files are read past the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.files.iter().all(|file| file.direct.is_some())
    }
}

/// A read, to be made or made: where from, and the slot that it fills.
pub(crate) struct Read {
    /// Tells reads apart.
    pub(crate) number: u64,
    pub(crate) range: FileRange,
    pub(crate) slot: Slot,
}

/// What reads weights that are swapped in.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderKind {
    /// The kernel, which is given requests through Linux's io_uring: no thread shares the cores with those that compute.
    IoUring,
    /// Threads, each with one read under way.
    Threads,
}

impl ReaderKind {
    /// All of them, the best first.
    const ALL: [ReaderKind; 2] = [ReaderKind::IoUring, ReaderKind::Threads];

    /// Lower-case name, as tables and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            ReaderKind::IoUring => "io_uring",
            ReaderKind::Threads => "threads",
        }
    }

    /// Those that this system allows, the best first. Containers often forbid io_uring.
    pub fn available() -> impl Iterator<Item = ReaderKind> {
        let no_files = Arc::new(ModelFiles { paths: Vec::new(), files: Vec::new() });
        Self::ALL.into_iter().filter(move |kind| kind.start(&no_files, 1).is_ok())
    }

    /// Starts one that holds at most `max_reads` at a time.
    ///
    /// # Errors
    /// The system's reason.
    pub(super) fn start(self, files: &Arc<ModelFiles>, max_reads: usize) -> io::Result<Box<dyn Reader>> {
        match self {
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
            ReaderKind::IoUring => Ok(Box::new(uring::UringReader::start(Arc::clone(files), max_reads)?)),
            #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
            ReaderKind::IoUring => Err(io::ErrorKind::Unsupported.into()),
            ReaderKind::Threads => Ok(Box::new(threads::ReadThreads::start(files, max_reads)?)),
        }
    }

    /// Starts `wanted`, or else the best that this system allows.
    ///
    /// # Errors
    /// [`Error::Reader`], with the system's reason.
    pub(super) fn start_any(
        wanted: Option<Self>,
        files: &Arc<ModelFiles>,
        max_reads: usize,
    ) -> Result<Box<dyn Reader>> {
        let kind = match wanted {
            Some(kind) => kind,
            None => match Self::IoUring.start(files, max_reads) {
                Ok(reader) => return Ok(reader),
                Err(error) => {
                    tracing::info!(%error, "no io_uring");
                    Self::Threads
                }
            },
        };
        kind.start(files, max_reads).map_err(|source| Error::Reader { reader: kind.name(), source })
    }
}

/// Fills slots. Reads end in any order.
pub(crate) trait Reader: Send {
    fn kind(&self) -> ReaderKind;

    /// Takes a read, to be made after those before. Never waits, as long as there are no more than the promised number.
    fn submit(&mut self, read: Read);

    /// Waits for one of the reads to end. There must be one.
    fn wait(&mut self) -> (Read, io::Result<()>);
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const CHUNK_BYTES: usize = 20_000;

    fn read(number: u64) -> Read {
        let range = FileRange { shard: 0, offset: 10_000 * number, n_bytes: CHUNK_BYTES };
        Read { number, range, slot: Slot::new(&Tier::ram(None), CHUNK_BYTES).unwrap() }
    }

    fn write(path: &std::path::Path) {
        let words = (0..50_000u32).flat_map(u32::to_le_bytes);
        std::fs::write(path, words.collect::<Vec<_>>()).unwrap();
    }

    #[test]
    fn every_reader_fills_slots_from_any_file_as_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        paths.iter().for_each(|path| write(path));
        for kind in ReaderKind::available() {
            for direct in [true, false] {
                let mut files = ModelFiles::open(paths.to_vec()).unwrap();
                if !direct {
                    files.files.iter_mut().for_each(|file| file.direct = None);
                }
                let mut reader = kind.start(&Arc::new(files), 6).unwrap();
                assert_eq!(reader.kind(), kind);
                for number in 0..6 {
                    let mut read = read(number);
                    read.range.shard = number as usize % 2;
                    reader.submit(read);
                }
                let mut numbers: Vec<u64> = (0..6)
                    .map(|_| {
                        let (Read { number, range, slot }, result) = reader.wait();
                        result.unwrap();
                        let words = (range.offset as u32 / 4..).take(range.n_bytes / 4);
                        assert!(slot.chunk().iter().copied().eq(words.flat_map(u32::to_le_bytes)));
                        number
                    })
                    .collect();
                numbers.sort_unstable();
                assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
            }
        }
    }

    #[test]
    fn every_reader_passes_the_systems_reason_on_and_keeps_working() {
        let folder = tempfile::tempdir().unwrap();
        let paths = vec![folder.path().join("a"), folder.path().join("b")];
        paths.iter().for_each(|path| write(path));
        for kind in ReaderKind::available() {
            let mut files = ModelFiles::open(paths.clone()).unwrap();
            let not_for_reading = File::options().append(true).open(&paths[1]).unwrap();
            files.files[1] = DirectFile { file: not_for_reading, direct: None };
            let mut reader = kind.start(&Arc::new(files), 2).unwrap();
            for shard in [1, 0, 1, 1, 0] {
                let mut read = read(3);
                read.range.shard = shard;
                reader.submit(read);
                let (_, result) = reader.wait();
                assert_eq!(result.is_ok(), shard == 0, "{kind:?}: {result:?}");
                // EBADF, for which there is no name yet.
                assert!(result.is_ok() || result.unwrap_err().raw_os_error().is_some());
            }
        }
    }

    #[test]
    fn reads_outlive_the_thread_that_asked_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path);
        for kind in ReaderKind::available() {
            for direct in [true, false] {
                let mut files = ModelFiles::open(vec![path.clone()]).unwrap();
                if !direct {
                    files.files[0].direct = None;
                }
                let mut reader = kind.start(&Arc::new(files), 18).unwrap();
                let reader = &mut reader;
                std::thread::scope(|scope| {
                    scope.spawn(|| (0..18).for_each(|number| reader.submit(read(number))));
                });
                (0..18).for_each(|_| reader.wait().1.unwrap());
            }
        }
    }

    #[test]
    fn every_reader_may_be_dropped_with_reads_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path);
        for kind in ReaderKind::available() {
            for n_ended in 0..4 {
                let files = Arc::new(ModelFiles::open(vec![path.clone()]).unwrap());
                let mut reader = kind.start(&files, 8).unwrap();
                (0..8).for_each(|number| reader.submit(read(number)));
                (0..n_ended).for_each(|_| reader.wait().1.unwrap());
                drop(reader);
                assert_eq!(Arc::strong_count(&files), 1, "{kind:?}: nobody reads any more");
            }
        }
    }
}
