//! How fast this machine reads memory: what bounds generation.

use std::hint::black_box;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use metallic::ThreadPool;

use crate::cost::per_second;
use crate::failure::Result;
use crate::model_file;

/// What is read in a pass, by all threads together: more than the caches of nearly any machine hold.
const BUFFER_BYTES: u64 = 256 << 20;

/// Where there is less room than that, the weights that a model has in memory take no more either, so that the rate is
/// theirs. Of less than this a pass is too short to be timed.
const MIN_BUFFER_BYTES: u64 = 1 << 20;

/// The best pass counts, as the others were disturbed; a tenth of a second on most machines.
const N_PASSES: usize = 8;

/// Bytes a second that this many threads read at best, each its own consecutive part of memory, of which they take no
/// more than there is room for. `None` if that is too little.
pub(crate) fn measure(n_threads: usize, room_bytes: u64) -> Result<Option<f64>> {
    let share_bytes = (BUFFER_BYTES.min(room_bytes) / n_threads as u64) as usize;
    let n_bytes = share_bytes * n_threads;
    if (n_bytes as u64) < MIN_BUFFER_BYTES {
        return Ok(None);
    }
    let pool = ThreadPool::new(n_threads).map_err(|e| model_file::no_threads(n_threads, e))?;
    let shares = (0..n_threads).map(|_| untouched(share_bytes).map(Mutex::new));
    let shares = match shares.collect::<io::Result<Vec<_>>>() {
        Ok(shares) => shares,
        Err(error) => {
            tracing::info!("the bandwidth of memory is unknown: there is none to measure it with: {error}");
            return Ok(None);
        }
    };
    let share = |worker: usize| shares[worker].lock().unwrap_or_else(PoisonError::into_inner);
    // Touched first by the thread that reads it, so that it lies close to it; pages of zeros may all be the same page.
    pool.run(&|worker| share(worker).fill(1));
    let times = (0..N_PASSES).map(|_| {
        let started = Instant::now();
        pool.run(&|worker| read(&share(worker)));
        started.elapsed()
    });
    Ok(per_second(n_bytes as f64, times.min().unwrap_or(Duration::ZERO)))
}

/// Memory on huge pages, where the system has them, as they are read fastest.
fn untouched(n_bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(n_bytes)?;
    #[cfg(target_os = "linux")]
    if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "memory is read on small pages");
    }
    Ok(memory)
}

fn read(memory: &[u8]) {
    let words = black_box(memory.as_chunks::<8>().0).iter();
    black_box(words.fold(0, |sum: u64, word| sum.wrapping_add(u64::from_ne_bytes(*word))));
}
