//! Weights that are swapped in as they are used: *block swapping*.
//!
//! Whoever uses matrices announces them in the order of use. Their chunks are then read into slots, as many ahead
//! as there are slots, while earlier ones are being used. A slot that is given back takes the next chunk. So the
//! bytes read are those of the matrices announced, once for each announcement, and the wait for a chunk is the
//! only place where reading costs time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::expert_cache::ExpertStats;
use super::plan::StreamPlan;
use super::reader::{FileRange, ModelFiles, Read, ReadThreads, Reader, ReaderKind, Slot};
use crate::error::Result;

/// Threads that read: with so many reads under way disks come near to their best.
const READERS: usize = 4;

/// How weights are streamed, and what it has cost so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamStats {
    /// What reads them.
    pub reader: ReaderKind,
    /// Whether they are read past the page cache.
    pub direct: bool,
    /// Bytes of weights that were read.
    pub read_bytes: u64,
    /// How long computing waited for them.
    pub waited: Duration,
    /// Of experts, what a cache of them was asked for.
    pub experts: ExpertStats,
}

impl StreamStats {
    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            read_bytes: self.read_bytes - before.read_bytes,
            waited: self.waited - before.waited,
            experts: self.experts.since(before.experts),
            ..self
        }
    }
}

/// Consecutive whole rows of a matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamedRows {
    pub(crate) range: FileRange,
    pub(crate) row_bytes: usize,
    pub(crate) rows_per_chunk: usize,
}

impl StreamedRows {
    pub(crate) fn n_rows(&self) -> usize {
        self.range.n_bytes / self.row_bytes
    }

    /// Some of the rows.
    pub(crate) fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let offset = self.range.offset + (rows.start * self.row_bytes) as u64;
        Self { range: FileRange { offset, n_bytes: rows.len() * self.row_bytes, ..self.range }, ..*self }
    }

    /// The rows of each chunk, in order.
    pub(crate) fn chunks(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let n_rows = self.n_rows();
        (0..n_rows).step_by(self.rows_per_chunk).map(move |row| row..(row + self.rows_per_chunk).min(n_rows))
    }
}

/// Hands out chunks in the order in which their matrices were announced.
pub(crate) struct WeightStream {
    files: Arc<ModelFiles>,
    reader: Box<dyn Reader>,
    /// Announced, not yet being read.
    announced: VecDeque<FileRange>,
    free: Vec<Slot>,
    /// Being read or arrived, in the order of use.
    ahead: VecDeque<(u64, FileRange)>,
    arrived: Vec<(Read, io::Result<()>)>,
    n_under_way: usize,
    next_number: u64,
    row: Slot,
    stats: StreamStats,
}

impl WeightStream {
    /// Allocates the slots, and starts the threads that fill them.
    ///
    /// # Errors
    /// No memory for the slots, or no threads.
    pub(crate) fn new(files: ModelFiles, plan: StreamPlan) -> Result<Self> {
        let files = Arc::new(files);
        let reader = ReadThreads::start(&files, READERS.min(plan.n_slots), plan.n_slots)?;
        Self::with_reader(files, Box::new(reader), plan)
    }

    fn with_reader(files: Arc<ModelFiles>, reader: Box<dyn Reader>, plan: StreamPlan) -> Result<Self> {
        let StreamPlan { n_slots, chunk_bytes, max_row_bytes } = plan;
        let (kind, direct) = (reader.kind(), files.is_direct());
        let experts = ExpertStats::default();
        let stats = StreamStats { reader: kind, direct, read_bytes: 0, waited: Duration::ZERO, experts };
        tracing::info!(n_slots, chunk_bytes, direct, "weights are streamed by {}", kind.name());
        Ok(Self {
            files,
            reader,
            announced: VecDeque::new(),
            free: (0..n_slots).map(|_| Slot::new(chunk_bytes)).collect::<Result<_>>()?,
            ahead: VecDeque::with_capacity(n_slots),
            arrived: Vec::with_capacity(n_slots),
            n_under_way: 0,
            next_number: 0,
            row: Slot::new(max_row_bytes)?,
            stats,
        })
    }

    /// Bytes of the slots.
    pub(super) fn slot_bytes(plan: StreamPlan) -> u64 {
        let StreamPlan { n_slots, chunk_bytes, max_row_bytes } = plan;
        (n_slots * Slot::bytes_for(chunk_bytes) + Slot::bytes_for(max_row_bytes)) as u64
    }

    /// What streaming has cost so far.
    pub(crate) fn stats(&self) -> StreamStats {
        self.stats
    }

    /// Says that all of `rows` will be used once, after what was announced before.
    pub(crate) fn announce(&mut self, rows: &StreamedRows) {
        self.announced.extend(rows.chunks().map(|chunk| rows.rows(chunk).range));
        self.read_ahead();
    }

    /// Takes everything announced back: for whoever can't go on in that order.
    pub(crate) fn forget(&mut self) {
        self.announced.clear();
        self.ahead.clear();
        while self.n_under_way > 0 {
            self.wait_for_one();
        }
        let slots = self.arrived.drain(..).map(|(read, _)| read.slot);
        self.free.extend(slots);
    }

    /// The chunk that holds `range`, in a slot that must be [given back](Self::give_back). One that is not the next
    /// of those announced ends what was announced, and is waited for in full.
    ///
    /// # Errors
    /// [`Error::Stream`](crate::Error::Stream), with the file, the place and the system's reason. Nothing is
    /// announced any more then.
    pub(crate) fn next(&mut self, range: FileRange) -> Result<Slot> {
        if self.ahead.front().is_none_or(|(_, next)| *next != range) {
            if !(self.ahead.is_empty() && self.announced.is_empty()) {
                tracing::info!(?range, "is not the chunk that was announced");
                self.forget();
            }
            self.announced.push_back(range);
            self.read_ahead();
        }
        let (number, _) = self.ahead.pop_front().expect("the chunk is being read: a slot was free for it");
        let began = Instant::now();
        let place = loop {
            match self.arrived.iter().position(|(read, _)| read.number == number) {
                Some(place) => break place,
                None => self.wait_for_one(),
            }
        };
        self.stats.waited += began.elapsed();
        let (read, result) = self.arrived.swap_remove(place);
        match result {
            Ok(()) => {
                self.stats.read_bytes += range.n_bytes as u64;
                Ok(read.slot)
            }
            Err(source) => {
                self.free.push(read.slot);
                self.forget();
                Err(self.files.error(range, source))
            }
        }
    }

    /// Ends the use of a chunk.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        self.free.push(slot);
        self.read_ahead();
    }

    /// A single row, at once.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub(crate) fn row(&mut self, range: FileRange) -> Result<&[u8]> {
        let began = Instant::now();
        let result = self.row.fill(&self.files, range);
        self.stats.waited += began.elapsed();
        self.stats.read_bytes += range.n_bytes as u64;
        result.map_err(|source| self.files.error(range, source))?;
        Ok(self.row.chunk())
    }

    /// Begins reads as long as there are slots for them.
    fn read_ahead(&mut self) {
        while !self.free.is_empty() && !self.announced.is_empty() {
            let (Some(slot), Some(range)) = (self.free.pop(), self.announced.pop_front()) else { return };
            let number = self.next_number;
            self.next_number += 1;
            self.reader.submit(Read { number, range, slot });
            self.n_under_way += 1;
            self.ahead.push_back((number, range));
        }
    }

    fn wait_for_one(&mut self) {
        let ended = self.reader.wait();
        self.n_under_way -= 1;
        self.arrived.push(ended);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::path::PathBuf;

    use super::*;
    use crate::error::Error;

    const ROW_BYTES: usize = 10;

    /// Ends reads in an order and with results that a test chooses. What it reads is of the file of the other tests.
    struct FakeReader {
        files: Arc<ModelFiles>,
        under_way: VecDeque<Read>,
        max_reads: usize,
        newest_first: bool,
        /// The number of the read that fails.
        fails: Option<u64>,
    }

    impl Reader for FakeReader {
        fn kind(&self) -> ReaderKind {
            ReaderKind::Threads
        }

        fn submit(&mut self, read: Read) {
            self.under_way.push_back(read);
            assert!(self.under_way.len() <= self.max_reads, "as many reads as there are slots");
        }

        fn wait(&mut self) -> (Read, io::Result<()>) {
            let next = if self.newest_first { self.under_way.pop_back() } else { self.under_way.pop_front() };
            let mut read = next.expect("a read is under way");
            if self.fails == Some(read.number) {
                return (read, Err(io::Error::other("the disk is on fire")));
            }
            let result = read.slot.fill(&self.files, read.range);
            (read, result)
        }
    }

    /// 100 rows of which every byte is the row's number.
    struct File {
        _folder: tempfile::TempDir,
        path: PathBuf,
    }

    impl File {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rows");
            let bytes: Vec<u8> = (0..100).flat_map(|row| [row; ROW_BYTES]).collect();
            std::fs::write(&path, bytes).unwrap();
            File { _folder: folder, path }
        }

        fn files(&self) -> Arc<ModelFiles> {
            Arc::new(ModelFiles::open(vec![self.path.clone()]).unwrap())
        }

        fn fake(&self, n_slots: usize, newest_first: bool, fails: Option<u64>) -> WeightStream {
            let files = self.files();
            let reader = FakeReader {
                files: Arc::clone(&files),
                under_way: VecDeque::new(),
                max_reads: n_slots,
                newest_first,
                fails,
            };
            WeightStream::with_reader(files, Box::new(reader), plan(n_slots)).unwrap()
        }
    }

    fn plan(n_slots: usize) -> StreamPlan {
        StreamPlan { n_slots, chunk_bytes: 3 * ROW_BYTES, max_row_bytes: ROW_BYTES }
    }

    fn rows(first: usize, n: usize) -> StreamedRows {
        let range = FileRange { shard: 0, offset: (first * ROW_BYTES) as u64, n_bytes: n * ROW_BYTES };
        StreamedRows { range, row_bytes: ROW_BYTES, rows_per_chunk: 3 }
    }

    /// Takes all chunks of some rows, and checks what they hold.
    fn take(stream: &mut WeightStream, rows: StreamedRows) -> Result<()> {
        for chunk in rows.chunks() {
            let range = rows.rows(chunk).range;
            let slot = stream.next(range)?;
            let expected = (range.offset as usize..).take(range.n_bytes).map(|at| (at / ROW_BYTES) as u8);
            assert!(slot.chunk().iter().copied().eq(expected));
            stream.give_back(slot);
        }
        Ok(())
    }

    /// All slots are free once nothing is announced.
    fn is_whole(stream: &mut WeightStream, n_slots: usize) -> bool {
        stream.forget();
        stream.free.len() == n_slots && stream.n_under_way == 0 && stream.arrived.is_empty()
    }

    #[test]
    fn chunks_come_in_the_order_announced_whatever_order_reads_end_in() {
        let file = File::new();
        let matrices = [rows(0, 20), rows(50, 7), rows(20, 1), rows(0, 20)];
        for n_slots in [1, 2, 5, 40] {
            let threads = ReadThreads::start(&file.files(), 3, n_slots).unwrap();
            let threads = WeightStream::with_reader(file.files(), Box::new(threads), plan(n_slots)).unwrap();
            for mut stream in [file.fake(n_slots, false, None), file.fake(n_slots, true, None), threads] {
                matrices.iter().for_each(|rows| stream.announce(rows));
                matrices.iter().for_each(|rows| take(&mut stream, *rows).unwrap());
                assert_eq!(stream.stats().read_bytes, 48 * ROW_BYTES as u64);
                assert!(is_whole(&mut stream, n_slots));
            }
        }
    }

    #[test]
    fn a_failed_read_is_an_error_with_its_place_and_what_follows_works() {
        let file = File::new();
        for n_slots in [1, 3] {
            for newest_first in [false, true] {
                for fails in 0..7 {
                    let mut stream = file.fake(n_slots, newest_first, Some(fails));
                    stream.announce(&rows(30, 20));
                    match take(&mut stream, rows(30, 20)) {
                        Err(Error::Stream { path, offset, n_bytes, source }) => {
                            assert_eq!(path, file.path);
                            assert_eq!(offset, (30 + 3 * fails) * ROW_BYTES as u64);
                            assert_eq!(n_bytes, if fails == 6 { 2 } else { 3 } * ROW_BYTES);
                            assert_eq!(source.to_string(), "the disk is on fire");
                        }
                        other => panic!("{other:?}"),
                    }
                    assert!(is_whole(&mut stream, n_slots));
                    stream.announce(&rows(10, 9));
                    take(&mut stream, rows(10, 9)).unwrap();
                    assert!(is_whole(&mut stream, n_slots));
                }
            }
        }
    }

    #[test]
    fn who_leaves_the_announced_order_gets_what_is_asked_for() {
        let file = File::new();
        let mut stream = file.fake(3, true, None);
        stream.announce(&rows(0, 30));
        take(&mut stream, rows(0, 6)).unwrap();
        take(&mut stream, rows(60, 9)).unwrap();
        assert_eq!(stream.row(rows(77, 1).range).unwrap(), [77; ROW_BYTES]);
        stream.announce(&rows(9, 3));
        take(&mut stream, rows(9, 3)).unwrap();
        assert!(is_whole(&mut stream, 3));
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        let file = File::new();
        let threads = ReadThreads::start(&file.files(), 2, 4).unwrap();
        let mut stream = WeightStream::with_reader(file.files(), Box::new(threads), plan(4)).unwrap();
        let handle = std::fs::File::options().write(true).open(&file.path).unwrap();
        handle.set_len(55).unwrap();
        stream.announce(&rows(0, 100));
        let error = take(&mut stream, rows(0, 100)).unwrap_err();
        assert!(matches!(&error, Error::Stream { offset: 30, .. }), "{error}");
        assert!(stream.row(rows(6, 1).range).is_err());
        assert!(is_whole(&mut stream, 4));
        handle.set_len(1000).unwrap();
        take(&mut stream, rows(0, 5)).unwrap();
    }
}
