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
use super::ledger::Tier;
use super::reader::{FileRange, ModelFiles, Read, Reader, ReaderKind, Slot};
use crate::error::Result;

/// How weights are swapped in, where not all stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Chunks that are read ahead or in use.
    pub n_slots: usize,
    /// Bytes of a chunk at most, if a row is not longer.
    pub chunk_bytes: usize,
    /// Bytes of the longest row that is read by itself.
    pub max_row_bytes: usize,
}

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

    /// With what another backend's stream has cost.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            direct: self.direct && other.direct,
            read_bytes: self.read_bytes + other.read_bytes,
            waited: self.waited + other.waited,
            experts: self.experts.and(other.experts),
            ..self
        }
    }
}

/// Consecutive whole rows of a matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamedRows {
    pub(crate) range: FileRange,
    row_bytes: usize,
    rows_per_chunk: usize,
}

impl StreamedRows {
    /// The `n_rows` rows in `range`, in chunks of at most `chunk_bytes` if a row is not longer.
    pub fn new(range: FileRange, n_rows: usize, chunk_bytes: usize) -> Self {
        let row_bytes = range.n_bytes / n_rows;
        Self { range, row_bytes, rows_per_chunk: (chunk_bytes / row_bytes).max(1) }
    }

    /// How many there are.
    pub fn n_rows(&self) -> usize {
        self.range.n_bytes / self.row_bytes
    }

    /// Where they lie.
    pub fn range(&self) -> FileRange {
        self.range
    }

    /// Some of the rows.
    #[must_use]
    pub fn rows(&self, rows: std::ops::Range<usize>) -> Self {
        let offset = self.range.offset + (rows.start * self.row_bytes) as u64;
        Self { range: FileRange { offset, n_bytes: rows.len() * self.row_bytes, ..self.range }, ..*self }
    }

    /// The rows of each chunk, in order.
    pub fn chunks(self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let n_rows = self.n_rows();
        (0..n_rows).step_by(self.rows_per_chunk).map(move |row| row..(row + self.rows_per_chunk).min(n_rows))
    }
}

/// Hands out chunks in the order in which their matrices were announced.
pub struct WeightStream {
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
    chunk_bytes: usize,
    stats: StreamStats,
}

impl WeightStream {
    /// Allocates the slots, and starts what fills them: `reader`, or else the best that the system allows.
    ///
    /// # Errors
    /// No memory for the slots, or no reader.
    pub(crate) fn new(
        files: ModelFiles,
        plan: StreamPlan,
        reader: Option<ReaderKind>,
        ram: &Tier,
    ) -> Result<Self> {
        let files = Arc::new(files);
        let reader = ReaderKind::start_any(reader, &files, plan.n_slots)?;
        Self::with_reader(files, reader, plan, ram)
    }

    fn with_reader(
        files: Arc<ModelFiles>,
        reader: Box<dyn Reader>,
        plan: StreamPlan,
        ram: &Tier,
    ) -> Result<Self> {
        let StreamPlan { n_slots, chunk_bytes, max_row_bytes } = plan;
        let (kind, direct) = (reader.kind(), files.is_direct());
        let experts = ExpertStats::default();
        let stats = StreamStats { reader: kind, direct, read_bytes: 0, waited: Duration::ZERO, experts };
        tracing::info!(n_slots, chunk_bytes, direct, "weights are streamed by {}", kind.name());
        Ok(Self {
            files,
            reader,
            announced: VecDeque::new(),
            free: (0..n_slots).map(|_| Slot::new(ram, chunk_bytes)).collect::<Result<_>>()?,
            ahead: VecDeque::with_capacity(n_slots),
            arrived: Vec::with_capacity(n_slots),
            n_under_way: 0,
            next_number: 0,
            row: Slot::new(ram, max_row_bytes)?,
            chunk_bytes,
            stats,
        })
    }

    /// Bytes of the slots.
    pub(crate) fn slot_bytes(plan: StreamPlan) -> u64 {
        let StreamPlan { n_slots, chunk_bytes, max_row_bytes } = plan;
        (n_slots * Slot::bytes_for(chunk_bytes) + Slot::bytes_for(max_row_bytes)) as u64
    }

    /// Bytes of a chunk at most, if a row is not longer.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// What streaming has cost so far.
    pub fn stats(&self) -> StreamStats {
        self.stats
    }

    /// Says that all of `rows` will be used once, after what was announced before.
    pub fn announce(&mut self, rows: &StreamedRows) {
        self.announced.extend(rows.chunks().map(|chunk| rows.rows(chunk).range));
        self.read_ahead();
    }

    /// Takes everything announced back: for whoever can't go on in that order.
    pub fn forget(&mut self) {
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
    pub fn next(&mut self, range: FileRange) -> Result<Slot> {
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
    pub fn give_back(&mut self, slot: Slot) {
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
mod tests;
