//! How fast this machine reads memory: what bounds generation.

use std::hint::black_box;
use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use memmap2::MmapMut;

use metallic::MemoryBudget;

use crate::failure::{Failure, Kind, Result};

/// What is read in a pass, by all threads together: more than the caches of nearly any machine hold.
const BUFFER_BYTES: usize = 256 << 20;
/// The best pass counts, as the others were disturbed; a tenth of a second on most machines.
const N_PASSES: usize = 8;

/// Bytes a second that this many threads read at best, each its own consecutive part of memory.
pub(crate) fn measure(n_threads: usize) -> Result<f64> {
    // Where memory is scarce, what is left of it must do.
    let free = MemoryBudget::auto().map_or(u64::MAX, |budget| budget.ram_bytes / 2);
    let share_bytes = BUFFER_BYTES.min(free as usize) / n_threads;
    let start = Barrier::new(n_threads);
    let times = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..n_threads).map(|_| scope.spawn(|| read_share(share_bytes, &start))).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(times) => times,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<io::Result<Vec<_>>>()
    });
    let times = times
        .map_err(|e| Failure::new(Kind::General, "no memory to measure its bandwidth with").because(e))?;
    // From the first thread's start: on a busy machine another may start late, and be done soon.
    let passes = (0..N_PASSES).filter_map(|pass| {
        let began = times.iter().map(|of_thread| of_thread[pass].0).min()?;
        let ended = times.iter().map(|of_thread| of_thread[pass].1).max()?;
        Some(ended - began)
    });
    let best = passes.min().unwrap_or_default();
    Ok((share_bytes * n_threads) as f64 / best.as_secs_f64())
}

/// When each pass began and ended, over memory that this thread touched first, so that it lies close to it:
/// on huge pages, where the system has them, as they are read fastest.
fn read_share(n_bytes: usize, start: &Barrier) -> io::Result<[(Instant, Instant); N_PASSES]> {
    let share = MmapMut::map_anon(n_bytes).map(|mut share| {
        #[cfg(target_os = "linux")]
        if let Err(error) = share.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "memory is read on small pages");
        }
        // Not zeros: pages of zeros may all be the same page.
        share.fill(1);
        share
    });
    let words = share.as_ref().map_or(&[][..], |share| share.as_chunks::<8>().0);
    // Also without memory, as the others wait.
    let times = [(); N_PASSES].map(|()| {
        start.wait();
        let started = Instant::now();
        let words = black_box(words).iter();
        let sum = words.fold(0, |sum: u64, word| sum.wrapping_add(u64::from_ne_bytes(*word)));
        black_box(sum);
        (started, Instant::now())
    });
    share.map(|_| times)
}
