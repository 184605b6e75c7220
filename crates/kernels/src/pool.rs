//! Threads that share out one operation at a time.
//!
//! A forward pass is some hundred short phases a token, each needing every thread and ending in a
//! barrier, so the barrier is what matters: a thread that waits first spins, for as long as the gap
//! between two phases of a small model lasts, and then parks, so an idle pool costs nothing.
//! The calling thread is worker 0, and a pool of one thread starts none.
//!
//! Not a work-stealing pool: [`split`](ThreadPool::split) gives each worker one contiguous range, which
//! is what keeps a matrix a few sequential streams through memory, and [`each`](ThreadPool::each) hands
//! out items of unequal cost from a counter. Neither changes what is computed, only by whom.

use std::any::Any;
use std::hint;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a waiting thread spins, at first without a pause: most waits between phases are shorter.
const SPIN: Duration = Duration::from_micros(5);

/// Looks between two at the clock, which costs as much as several of them.
const LOOKS: usize = 16;

/// How long a waiting thread looks before it parks: longer than the serial work between two phases of a
/// token, far shorter than a person notices. After `SPIN` it yields between looks. With a core for each
/// thread that is spinning still; where others need the core, spinning on would hold up the very thread
/// that is waited for (measured with four busy processes a core: twice the tokens for half the processor time).
const LOOK: Duration = Duration::from_micros(50);

/// Room for a helper's stack, of which it touches little. Far below a huge page, so that where the system uses those
/// for all memory no stack becomes one.
const MAX_STACK_BYTES: usize = 512 << 10;

/// What a helper touches of its stack: pages of its calls, and those that the C library keeps at either end.
const STACK_BYTES: u64 = 12 << 10;

/// What the system keeps for a thread outside the process: on Linux 16 KiB of kernel stack, its record, and tables
/// for the pages of its stack. Control groups count it; 30 KB were measured.
const KERNEL_BYTES: u64 = 32 << 10;

/// A fixed set of threads. Dropping it stops and joins them.
///
/// One job runs at a time: a second thread that starts one waits its turn.
///
/// # Panics
/// Every method that runs a job panics if it is called from inside a job of the same pool: the
/// workers are busy with the outer job, so the inner one could never run on them. A panic inside a job
/// is passed on to the caller once all workers are done; the pool stays usable.
pub struct ThreadPool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

/// What the caller and the helper threads exchange.
struct Shared {
    /// Grows by one with each job: the change that helpers wait for.
    epoch: AtomicUsize,
    /// The job of this epoch, on the caller's stack; null tells the helpers to end.
    job: AtomicPtr<Job<'static>>,
    /// Helpers that have not finished this job.
    pending: AtomicUsize,
    /// The thread inside [`ThreadPool::dispatch`], which waits for `pending` to reach zero.
    caller: Mutex<Option<Thread>>,
}

struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl ThreadPool {
    /// A pool of `n_threads` workers, the caller among them.
    ///
    /// # Errors
    /// If `n_threads` is zero, or the system refuses a thread.
    pub fn new(n_threads: usize) -> io::Result<Self> {
        if n_threads == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a thread pool needs at least one thread",
            ));
        }
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            pending: AtomicUsize::new(0),
            caller: Mutex::new(None),
        });
        let mut pool =
            ThreadPool { shared, helpers: Vec::with_capacity(n_threads - 1), turn: Mutex::new(()) };
        for worker in 1..n_threads {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("kernels-{worker}")).stack_size(MAX_STACK_BYTES);
            pool.helpers.push(thread.spawn(move || shared.help(worker))?);
        }
        Ok(pool)
    }

    /// Bytes that the stacks of a pool take; the caller's is its own.
    pub fn stack_bytes(n_threads: usize) -> u64 {
        (n_threads as u64).saturating_sub(1) * STACK_BYTES
    }

    /// Bytes that the system keeps for the threads of a pool.
    pub fn kernel_bytes(n_threads: usize) -> u64 {
        (n_threads as u64).saturating_sub(1) * KERNEL_BYTES
    }

    /// Workers, the caller among them.
    pub fn n_threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work(worker)` once on each worker, `0..n_threads()`, and returns when all have returned.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        self.dispatch(true, work);
    }

    /// Divides `0..n` into at most one contiguous range for each worker and calls `work` on each.
    /// Ranges start at multiples of `grain` and are as equal as that allows.
    ///
    /// # Panics
    /// If `grain` is zero.
    pub fn split(&self, n: usize, grain: usize, work: &(dyn Fn(Range<usize>) + Sync)) {
        self.dispatch(n > grain, &|worker| {
            let workers = if n > grain { self.n_threads() } else { 1 };
            let range = part(n, grain, worker, workers);
            if !range.is_empty() {
                work(range);
            }
        });
    }

    /// Calls `work(i)` for each `i` in `0..n`, on whichever worker is free.
    pub fn each(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        self.dispatch(n > 1, &|_| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                work(i);
            }
        });
    }

    /// Calls `work(i, chunk)` for each chunk of `chunk_len` items of `data` (the last may be shorter),
    /// on whichever worker is free.
    ///
    /// # Panics
    /// If `chunk_len` is zero.
    pub fn each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        work: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        self.each_chunk_on(data, chunk_len, &|_, i, chunk| work(i, chunk));
    }

    /// [`each_chunk`](Self::each_chunk) that tells the worker too: `work(worker, i, chunk)`.
    ///
    /// # Panics
    /// If `chunk_len` is zero.
    pub fn each_chunk_on<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        work: &(dyn Fn(usize, usize, &mut [T]) + Sync),
    ) {
        let several = data.len() > chunk_len;
        let chunks = Mutex::new(data.chunks_mut(chunk_len).enumerate());
        self.dispatch(several, &|worker| {
            loop {
                let next = lock(&chunks).next();
                let Some((i, chunk)) = next else { break };
                work(worker, i, chunk);
            }
        });
    }

    /// Divides the rows of `data`, `row_len` items each, into at most one contiguous part for each
    /// worker and calls `work(first_row, part)` on each.
    ///
    /// # Panics
    /// If `row_len` is zero.
    pub fn split_rows<T: Send>(
        &self,
        data: &mut [T],
        row_len: usize,
        work: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        let n_rows = (data.len() / row_len).div_ceil(self.n_threads()).max(1);
        self.each_chunk(data, n_rows * row_len, &|i, rows| work(i * n_rows, rows));
    }

    /// Runs `work` on all workers, or, where the job is too small to share, on the caller alone.
    fn dispatch(&self, on_all: bool, work: &(dyn Fn(usize) + Sync)) {
        let turn = self.take_turn();
        let job = Job { work, panic: Mutex::new(None) };
        if on_all && !self.helpers.is_empty() {
            self.shared.announce(ptr::from_ref(&job).cast_mut().cast(), &self.helpers);
        }
        job.call(0);
        wait_until(|| self.shared.pending.load(Ordering::Acquire) == 0);
        *lock(&self.shared.caller) = None;
        drop(turn);
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    fn take_turn(&self) -> MutexGuard<'_, ()> {
        let me = thread::current();
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let inside = |thread: &Thread| thread.id() == me.id();
                let nested = self.helpers.iter().any(|helper| inside(helper.thread()))
                    || lock(&self.shared.caller).as_ref().is_some_and(inside);
                assert!(!nested, "a job of a thread pool used the same pool");
                lock(&self.turn)
            }
        };
        *lock(&self.shared.caller) = Some(me);
        turn
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.announce(ptr::null_mut(), &self.helpers);
        for helper in self.helpers.drain(..) {
            // A helper catches every panic of a job, and has none of its own to report.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// Shows `job` to the helpers. It must stay alive until `pending` is back at zero.
    fn announce(&self, job: *mut Job<'static>, helpers: &[JoinHandle<()>]) {
        self.job.store(job, Ordering::Relaxed);
        self.pending.store(helpers.len(), Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::Release);
        for helper in helpers {
            helper.thread().unpark();
        }
    }

    /// A helper's life: waits for a job, runs its share, tells the caller.
    fn help(&self, worker: usize) {
        for epoch in 0.. {
            wait_until(|| self.epoch.load(Ordering::Acquire) != epoch);
            // SAFETY: `dispatch` keeps the job alive until `pending`, which counts this helper, is zero;
            // the acquiring load of `epoch` orders this read after the job was written.
            let Some(job) = (unsafe { self.job.load(Ordering::Relaxed).as_ref() }) else { return };
            job.call(worker);
            if self.pending.fetch_sub(1, Ordering::AcqRel) == 1
                && let Some(caller) = &*lock(&self.caller)
            {
                caller.unpark();
            }
        }
    }
}

impl Job<'_> {
    fn call(&self, worker: usize) {
        // Unwind safety: the caller sees the panic before it can see what the job left half done.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(worker))) {
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

/// The part of `0..n` that worker `worker` of `workers` takes, in whole grains.
pub(crate) fn part(n: usize, grain: usize, worker: usize, workers: usize) -> Range<usize> {
    let grains = n.div_ceil(grain);
    let bound = |worker: usize| (grains * worker / workers * grain).min(n);
    bound(worker)..bound(worker + 1)
}

/// Spins, yields, then parks until `ready`: whoever makes it so must unpark this thread afterwards.
fn wait_until(ready: impl Fn() -> bool) {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if ready() {
                return;
            }
            hint::spin_loop();
        }
        let waited = start.elapsed();
        if waited >= LOOK {
            thread::park();
        } else if waited >= SPIN {
            thread::yield_now();
        }
    }
}

/// Nothing these locks guard is ever left half written, so a panic under one does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
