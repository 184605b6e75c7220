//! Chunks of weights read into slots, several at a time and in any order.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use memmap2::MmapMut;

use super::direct::DirectFile;
use super::slab;
use crate::error::{Error, Result};

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

/// A place to which chunks are read, one after the other.
pub(crate) struct Slot {
    memory: MmapMut,
    start: usize,
    n_bytes: usize,
}

impl Slot {
    /// Room for any chunk of up to `chunk_bytes`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system refuses.
    pub(super) fn new(chunk_bytes: usize) -> Result<Self> {
        let memory = slab::zeros("a slot for streamed weights", Self::bytes_for(chunk_bytes))?;
        Ok(Self { memory, start: 0, n_bytes: 0 })
    }

    /// Bytes that a slot for chunks of `chunk_bytes` takes.
    pub(super) fn bytes_for(chunk_bytes: usize) -> usize {
        DirectFile::room_for(chunk_bytes)
    }

    /// The chunk that was read last.
    pub(crate) fn chunk(&self) -> &[u8] {
        &self.memory[self.start..][..self.n_bytes]
    }

    pub(super) fn fill(&mut self, files: &ModelFiles, range: FileRange) -> io::Result<()> {
        self.start = files.read_blocks(range, &mut self.memory)?;
        self.n_bytes = range.n_bytes;
        Ok(())
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
        let files = paths.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { paths, files })
    }

    /// See [`DirectFile::read_blocks`].
    pub(super) fn read_blocks(&self, range: FileRange, to: &mut [u8]) -> io::Result<usize> {
        self.files[range.shard].read_blocks(range.offset, range.n_bytes, to)
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
    /// Threads, each with one read under way.
    Threads,
}

impl ReaderKind {
    /// Lower-case name, as tables and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            ReaderKind::Threads => "threads",
        }
    }
}

/// Fills slots. Reads end in any order.
pub(crate) trait Reader: Send {
    fn kind(&self) -> ReaderKind;

    /// Begins a read. Never waits, as long as no more than the promised number are under way.
    fn submit(&mut self, read: Read);

    /// Waits for one of the reads under way to end. There must be one.
    fn wait(&mut self) -> (Read, io::Result<()>);
}

/// Threads that each make one read at a time.
pub(crate) struct ReadThreads {
    submitted: Option<SyncSender<Read>>,
    ended: Receiver<(Read, io::Result<()>)>,
    threads: Vec<JoinHandle<()>>,
}

impl ReadThreads {
    /// Starts `n_threads`, for at most `max_reads` at a time.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system refuses.
    pub(super) fn start(files: &Arc<ModelFiles>, n_threads: usize, max_reads: usize) -> Result<Self> {
        let (submitted, reads) = sync_channel::<Read>(max_reads);
        let (end, ended) = sync_channel(max_reads);
        let reads = Arc::new(Mutex::new(reads));
        let mut this = Self { submitted: Some(submitted), ended, threads: Vec::with_capacity(n_threads) };
        for i in 0..n_threads {
            let (files, reads, end) = (Arc::clone(files), Arc::clone(&reads), end.clone());
            let work = move || {
                loop {
                    let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(mut read) = next else { return };
                    let result = read.slot.fill(&files, read.range);
                    if end.send((read, result)).is_err() {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new().name(format!("reader-{i}")).stack_size(256 << 10).spawn(work);
            this.threads.push(thread.map_err(|source| Error::Threads { n_threads, source })?);
        }
        Ok(this)
    }
}

impl Reader for ReadThreads {
    fn kind(&self) -> ReaderKind {
        ReaderKind::Threads
    }

    fn submit(&mut self, read: Read) {
        let sent = self.submitted.as_ref().map(|submitted| submitted.send(read));
        assert!(matches!(sent, Some(Ok(()))), "readers run as long as this");
    }

    fn wait(&mut self) -> (Read, io::Result<()>) {
        self.ended.recv().expect("readers run as long as this")
    }
}

impl Drop for ReadThreads {
    fn drop(&mut self) {
        self.submitted = None;
        // A reader panics only by a defect, which has been reported; there is nothing to add here.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
