//! Ctrl-C: it ends the process, except while some work heeds it to stop in order.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "hub")]
use std::{
    thread,
    time::{Duration, Instant},
};

use crate::failure::{Failure, Kind, Result};

/// How often one who waits looks for Ctrl-C.
#[cfg(feature = "hub")]
const POLL: Duration = Duration::from_millis(100);

/// The handler of Ctrl-C.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    heeded: AtomicBool,
    pressed: AtomicBool,
}

impl Interrupt {
    /// Handles Ctrl-C from now on. Called once.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Interrupt::default();
        let state = Arc::clone(&interrupt.0);
        ctrlc::set_handler(move || {
            // Who does not stop at the first Ctrl-C is stopped by the second.
            let pressed_before = state.pressed.swap(true, Ordering::SeqCst);
            if pressed_before || !state.heeded.load(Ordering::SeqCst) {
                process::exit(Kind::Interrupted as i32);
            }
        })
        .map_err(|e| Failure::new(Kind::General, "can't catch Ctrl-C").because(e))?;
        Ok(interrupt)
    }

    /// Makes Ctrl-C a flag for the caller to look at, until the guard is dropped.
    pub(crate) fn heed(&self) -> Heed<'_> {
        self.0.pressed.store(false, Ordering::SeqCst);
        self.0.heeded.store(true, Ordering::SeqCst);
        Heed(&self.0)
    }
}

/// The promise to look for Ctrl-C often.
#[derive(Debug)]
pub(crate) struct Heed<'a>(&'a State);

impl Heed<'_> {
    /// Whether Ctrl-C was pressed.
    pub(crate) fn is_pressed(&self) -> bool {
        self.0.pressed.load(Ordering::SeqCst)
    }

    /// Waits; an error as soon as Ctrl-C is pressed.
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

    /// An error once Ctrl-C was pressed.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_pressed() { Err(Failure::interrupted()) } else { Ok(()) }
    }
}

impl Drop for Heed<'_> {
    fn drop(&mut self) {
        self.0.heeded.store(false, Ordering::SeqCst);
        self.0.pressed.store(false, Ordering::SeqCst);
    }
}
