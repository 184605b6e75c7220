//! What ends the process from outside: Ctrl-C, and on Unix SIGTERM and SIGHUP.
//!
//! Each ends it at once, except while some work heeds it to stop in order. Files that are being written are removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "hub")]
use std::{
    thread,
    time::{Duration, Instant},
};

use crate::failure::{Failure, Kind, Result};

/// How often one who waits looks whether to stop.
#[cfg(feature = "hub")]
const POLL: Duration = Duration::from_millis(100);

/// The handler of what ends the process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    heeded: bool,
    /// What has come since the work began that heeds it.
    came: Option<Kind>,
    unfinished: Vec<PathBuf>,
}

impl Interrupt {
    /// Handles signals from now on. Called once.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Interrupt::default();
        let handler = interrupt.clone();
        handle_signals(move |kind| handler.take(kind)).map_err(|error| {
            let failure = Failure::new(Kind::General, "can't catch Ctrl-C").because(error);
            failure.advice("it takes a thread; if the system allows no more, see `ulimit -u`")
        })?;
        Ok(interrupt)
    }

    fn take(&self, kind: Kind) {
        let mut state = self.state();
        // Who does not stop at the first is stopped by the second.
        if state.came.replace(kind).is_some() || !state.heeded {
            for path in &state.unfinished {
                let _ = fs::remove_file(path);
            }
            process::exit(kind as i32);
        }
    }

    /// Makes a signal a flag for the caller to look at, until the guard is dropped.
    pub(crate) fn heed(&self) -> Heed<'_> {
        let mut state = self.state();
        (state.heeded, state.came) = (true, None);
        Heed(self)
    }

    /// Whether a signal has come since the work began that heeds it.
    #[cfg(feature = "serve")]
    pub(crate) fn has_come(&self) -> bool {
        self.state().came.is_some()
    }

    /// Has a file removed if a signal ends the process before the guard is dropped.
    pub(crate) fn unfinished(&self, path: &Path) -> Unfinished<'_> {
        self.state().unfinished.push(path.to_owned());
        Unfinished { interrupt: self, path: path.to_owned() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The promise to look often for what has come.
#[derive(Debug)]
pub(crate) struct Heed<'a>(&'a Interrupt);

impl Heed<'_> {
    /// Whether Ctrl-C was pressed, or a signal asks for as much.
    pub(crate) fn is_pressed(&self) -> bool {
        self.0.state().came.is_some()
    }

    /// Waits; an error as soon as the work is to stop.
    #[cfg(feature = "hub")]
    pub(crate) fn sleep(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(POLL));
        }
    }

    /// An error once the work is to stop.
    pub(crate) fn check(&self) -> Result<()> {
        let came = self.0.state().came;
        came.map_or(Ok(()), |kind| Err(Failure::new(kind, "interrupted")))
    }

    /// An error once the whole process is to end, which Ctrl-C doesn't say of an answer.
    pub(crate) fn check_end(&self) -> Result<()> {
        self.check().or_else(|failure| match failure.kind() {
            Kind::Interrupted => Ok(()),
            _ => Err(failure),
        })
    }
}

impl Drop for Heed<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.heeded, state.came) = (false, None);
    }
}

/// See [`Interrupt::unfinished`].
#[derive(Debug)]
pub(crate) struct Unfinished<'a> {
    interrupt: &'a Interrupt,
    path: PathBuf,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.interrupt.state().unfinished.retain(|path| *path != self.path);
    }
}

/// Calls `take` with what each signal means, on a thread of its own.
#[cfg(unix)]
fn handle_signals(take: impl Fn(Kind) + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

    // Where files may not grow beyond a limit, one that does is an error of the write if the signal for it is caught.
    let mut caught = vec![SIGINT, SIGTERM, SIGXFSZ];
    if !ignores(SIGHUP) {
        caught.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(caught)?;
    let work = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => take(Kind::HungUp),
                SIGINT => take(Kind::Interrupted),
                SIGTERM => take(Kind::Terminated),
                _ => {}
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(work).map(drop)
}

/// Whether the process was started to ignore a signal, as `nohup` does with SIGHUP.
#[cfg(target_os = "linux")]
fn ignores(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Not told without unsafe code: then the signal keeps the meaning that it has.
#[cfg(all(unix, not(target_os = "linux")))]
fn ignores(_: i32) -> bool {
    true
}

/// Calls `take` when Ctrl-C is pressed, on a thread of its own.
#[cfg(windows)]
fn handle_signals(take: impl Fn(Kind) + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(move || take(Kind::Interrupted)).map_err(io::Error::other)
}
