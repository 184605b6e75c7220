//! A reader for tests: its reads end in any order, late, in pieces, or not at all.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::super::direct::read_at;
use super::{ModelFiles, Read, Reader, ReaderKind};

pub(crate) struct FakeReader {
    pub(crate) files: Arc<ModelFiles>,
    pub(crate) max_reads: usize,
    pub(crate) under_way: Vec<Read>,
    /// Which read ends next, of so many.
    pub(crate) next: Box<dyn FnMut(usize) -> usize + Send>,
    /// Whether a read fails.
    pub(crate) fails: Box<dyn FnMut(&Read) -> bool + Send>,
    /// Bytes that come at once, at most; no less than a block.
    pub(crate) max_bytes: usize,
    /// How long a read takes.
    pub(crate) delay: Duration,
}

impl FakeReader {
    /// One that makes no trouble.
    pub(crate) fn new(files: Arc<ModelFiles>, max_reads: usize) -> Self {
        let (next, fails) = (Box::new(|_| 0), Box::new(|_: &Read| false));
        let (max_bytes, delay) = (usize::MAX, Duration::ZERO);
        Self { files, max_reads, under_way: Vec::new(), next, fails, max_bytes, delay }
    }

    fn fill(&self, read: &mut Read) -> io::Result<()> {
        let file = self.files.of(read.range);
        let mut blocks = file.blocks(read.range.offset, read.range.n_bytes);
        while let Some((offset, place)) = blocks.missing() {
            let to = &mut read.slot.memory[place];
            let n_bytes = read_at(file.source(), offset, to)?.min(self.max_bytes);
            to[n_bytes..].fill(0xee);
            blocks.count(Ok(n_bytes))?;
        }
        read.slot.holds(blocks.start, read.range);
        Ok(())
    }
}

impl Reader for FakeReader {
    fn kind(&self) -> ReaderKind {
        ReaderKind::Threads
    }

    fn submit(&mut self, read: Read) {
        self.under_way.push(read);
        assert!(self.under_way.len() <= self.max_reads, "as many reads as there are slots");
    }

    fn wait(&mut self) -> (Read, io::Result<()>) {
        let next = (self.next)(self.under_way.len());
        let mut read = self.under_way.remove(next);
        thread::sleep(self.delay);
        let result = if (self.fails)(&read) {
            Err(io::Error::other("the disk is on fire"))
        } else {
            self.fill(&mut read)
        };
        (read, result)
    }
}
