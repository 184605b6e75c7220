//! Ends what takes longer than it may, where the work itself never looks at a clock.
//!
//! A thread sleeps until the first deadline of what was begun, and cancels what still runs then. Work that ends in time wakes
//! nobody, as long as more is begun before its deadline: so it costs two locks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::CancellationHandle;

use crate::error::{Error, Result};

/// Stack of the thread, which calls next to nothing.
const STACK_BYTES: usize = 128 << 10;

/// Whoever has work watched. The thread ends when this is dropped.
pub(super) struct Watch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: Vec<Running>,
    n_begun: u64,
    /// When the thread wakes by itself; `None` if it does not.
    wakes_at: Option<Instant>,
    is_over: bool,
}

struct Running {
    id: u64,
    deadline: Instant,
    cancel: CancellationHandle,
}

/// Work that is being done.
struct Guard<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Watch {
    /// # Errors
    /// [`Error::Threads`], if the system gives no thread.
    pub(super) fn new() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name("watch".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || watched.watch())
            .map_err(|source| Error::Threads { n_threads: 1, source })?;
        Ok(Self(shared))
    }

    /// Does some work that the handle cancels, and uses it once so much time has passed.
    pub(super) fn run<T>(&self, cancel: CancellationHandle, time: Duration, work: impl FnOnce() -> T) -> T {
        let guard = self.0.begin(cancel, Instant::now() + time);
        let done = work();
        drop(guard);
        done
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.shared.lock().running.retain(|running| running.id != self.id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, cancel: CancellationHandle, deadline: Instant) -> Guard<'_> {
        let mut state = self.lock();
        let id = state.n_begun;
        state.n_begun += 1;
        state.running.push(Running { id, deadline, cancel });
        if state.wakes_at.is_none_or(|wakes_at| wakes_at > deadline) {
            self.changed.notify_one();
        }
        Guard { shared: self, id }
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            let late = |running: &mut Running| running.deadline <= now;
            state.running.extract_if(.., late).for_each(|running| running.cancel.cancel());
            state.wakes_at = state.running.iter().map(|running| running.deadline).min();
            state = match state.wakes_at {
                Some(deadline) => {
                    let waited = self.changed.wait_timeout(state, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    /// Works until it is cancelled.
    fn until_cancelled(watch: &Watch, time: Duration) -> Duration {
        let began = Instant::now();
        let cancel = CancellationHandle::default();
        watch.run(cancel.clone(), time, || {
            while !cancel.is_cancelled() {
                assert!(began.elapsed() < LONG, "nobody cancels it");
                thread::sleep(Duration::from_millis(1));
            }
        });
        began.elapsed()
    }

    #[test]
    fn what_takes_too_long_is_cancelled_and_nothing_else() {
        let watch = Watch::new().unwrap();
        let quick = CancellationHandle::default();
        assert_eq!(watch.run(quick.clone(), SHORT, || 1), 1);
        // Whatever was begun before, ended or not, with a deadline before or after.
        let slow = CancellationHandle::default();
        watch.run(slow.clone(), LONG, || {
            for time in [2 * SHORT, SHORT, 3 * SHORT] {
                assert!(until_cancelled(&watch, time) >= time);
            }
        });
        // When nothing has been done for a while.
        thread::sleep(3 * SHORT);
        assert!(until_cancelled(&watch, SHORT) >= SHORT);
        assert!(!quick.is_cancelled() && !slow.is_cancelled());
    }

    #[test]
    fn work_that_fails_is_forgotten() {
        let watch = Watch::new().unwrap();
        let cancel = CancellationHandle::default();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            watch.run(cancel.clone(), SHORT, || panic!("on purpose"));
        }));
        assert!(failed.is_err());
        assert!(watch.0.lock().running.is_empty());
    }

    #[test]
    fn the_thread_ends_with_the_watch() {
        let watch = Watch::new().unwrap();
        let shared = Arc::downgrade(&watch.0);
        until_cancelled(&watch, SHORT);
        drop(watch);
        let began = Instant::now();
        while shared.strong_count() > 0 {
            assert!(began.elapsed() < LONG, "it goes on");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
