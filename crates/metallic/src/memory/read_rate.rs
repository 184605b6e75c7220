//! How fast a model's files can be read, with nothing else to do: what bounds streaming.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

use super::ledger::Tier;
use super::reader::{FileRange, ModelFiles};
use super::{GgufFile, slab};
use crate::error::Result;

/// Bytes read at a time: disks gain nothing from more.
const CHUNK_BYTES: usize = 4 << 20;

/// Reads under way: as many as bring disks near to their best.
const READERS: usize = 4;

impl GgufFile {
    /// Reads parts of the files over and over for about `time`, past the page cache where the system can, and throws away
    /// what it read. Returns bytes a second.
    ///
    /// # Errors
    /// [`Error::Open`](crate::Error::Open), [`Error::Stream`](crate::Error::Stream), no memory for a few megabytes.
    pub fn measure_reads(&self, time: Duration) -> Result<f64> {
        let files = self.open_direct()?;
        let ranges = self.chunks().collect::<Vec<_>>();
        let next = Mutex::new(ranges.iter().copied().cycle());
        let began = Instant::now();
        let read = || read_until(&files, &next, began + time);
        let n_bytes = thread::scope(|scope| {
            let threads: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(n_bytes) => n_bytes,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.sum::<Result<u64>>()
        })?;
        Ok(n_bytes as f64 / began.elapsed().as_secs_f64())
    }

    /// All of the files in chunks.
    fn chunks(&self) -> impl Iterator<Item = FileRange> {
        self.shard_bytes().enumerate().flat_map(|(shard, total)| {
            (0..total).step_by(CHUNK_BYTES).map(move |offset| {
                let n_bytes = (total - offset).min(CHUNK_BYTES as u64) as usize;
                FileRange { shard, offset, n_bytes }
            })
        })
    }
}

/// Reads ranges one after the other, until it is late. Returns their bytes.
fn read_until(
    files: &ModelFiles,
    ranges: &Mutex<impl Iterator<Item = FileRange>>,
    end: Instant,
) -> Result<u64> {
    let mut room = slab::zeros(&Tier::ram(None), "a place to read to", slab::bytes_for(CHUNK_BYTES))?;
    let mut n_bytes = 0;
    while Instant::now() < end {
        let range = ranges.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(range) = range else { break };
        files.read_blocks(range, &mut room).map_err(|source| files.error(range, source))?;
        n_bytes += range.n_bytes as u64;
    }
    Ok(n_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_any_size_is_read_at_some_rate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, crate::testing::tiny_model().unwrap()).unwrap();
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(file.chunks().map(|range| range.n_bytes as u64).sum::<u64>(), file.n_bytes());
        assert!(file.measure_reads(Duration::from_millis(20)).unwrap() > 0.0);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert!(file.measure_reads(Duration::from_millis(20)).is_err());
    }
}
