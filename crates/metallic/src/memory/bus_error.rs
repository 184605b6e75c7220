//! Last words when a mapped file has been cut short.
//!
//! Whoever reads a page of a map that the file has lost is sent SIGBUS, which ends a process without a word. No check
//! beforehand can rule it out, so a program may have the file named and choose its exit code. A library can't:
//! a signal's handler belongs to the whole process.

use std::io;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::GgufFile;

/// A map, and what to do when reading it fails.
struct Guarded {
    start: usize,
    end: usize,
    message: Vec<u8>,
    exit_code: i32,
    /// The map that was added before. Leaked, like all of them: a handler may look at any of them at any time.
    next: *const Guarded,
}

/// The map that was added last. A handler has nowhere else to look.
static LAST: AtomicPtr<Guarded> = AtomicPtr::new(ptr::null_mut());

/// What SIGBUS did before.
static FORMER: OnceLock<libc::sigaction> = OnceLock::new();

impl GgufFile {
    /// From now on, ends the process with `exit_code` when one of the mapped files has lost the bytes that are read, after
    /// writing `message`, which is given the file's path, to standard error. Keeps a few bytes for each file until
    /// the process ends.
    ///
    /// # Errors
    /// The system's reason for not taking the signal's handler.
    pub fn exit_on_bus_error(&self, exit_code: u8, message: impl Fn(&Path) -> String) -> io::Result<()> {
        for (path, bytes) in self.maps() {
            let range = bytes.as_ptr_range();
            let guarded = Box::leak(Box::new(Guarded {
                start: range.start.addr(),
                end: range.end.addr(),
                message: message(path).into_bytes(),
                exit_code: exit_code.into(),
                next: LAST.load(Ordering::Acquire),
            }));
            while let Err(last) =
                LAST.compare_exchange(guarded.next.cast_mut(), guarded, Ordering::AcqRel, Ordering::Acquire)
            {
                guarded.next = last;
            }
        }
        install()
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    if FORMER.get().is_some() {
        return Ok(());
    }
    // SAFETY: `sigaction` is a plain struct of integers, for which zeros are valid: no flags, an empty mask. The
    // handler has the signature that SA_SIGINFO asks for, and calls only what signal-safety(7) allows. `former` is
    // written by the call, and only read if it succeeded.
    let former = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut former: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, &raw const action, &raw mut former) != 0 {
            return Err(io::Error::last_os_error());
        }
        former
    };
    // If two threads came here at once, the first has the right one.
    let _ = FORMER.set(former);
    Ok(())
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system gives a handler that was installed with SA_SIGINFO a valid `info`, in which a SIGBUS has an
    // address.
    let address = unsafe { (*info).si_addr() }.addr();
    let mut next: *const Guarded = LAST.load(Ordering::Acquire);
    // SAFETY: entries are leaked and complete before they can be found, and no one changes them afterwards.
    while let Some(Guarded { start, end, message, exit_code, next: before }) = unsafe { next.as_ref() } {
        if (*start..*end).contains(&address) {
            // SAFETY: both calls are safe in a signal's handler, and the message is as long as it says. Nothing can be
            // done if it can't be written.
            unsafe {
                libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
                libc::_exit(*exit_code);
            }
        }
        next = *before;
    }
    // Not ours: the instruction is tried again, and whoever was responsible before is told.
    match FORMER.get() {
        // SAFETY: `former` is what the system gave us, and may have back.
        Some(former) => unsafe { libc::sigaction(signal, former, ptr::null_mut()) },
        // SAFETY: to let the system do what it does without a handler is always allowed.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
            0
        },
    };
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set for the child process of the test, to what it is to do.
    const CHILD: &str = "METALLIC_TEST_BUS_ERROR";

    /// The parts of the test that end their process.
    fn child(what: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, crate::testing::tiny_model().unwrap()).unwrap();
        let file = GgufFile::open(&path).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, [1; 5000]).unwrap();
        // SAFETY: that it is cut short is what the test is about.
        let unguarded = unsafe { memmap2::Mmap::map(&std::fs::File::open(&other).unwrap()) }.unwrap();
        file.exit_on_bus_error(77, |path| format!("lost {}\n", path.display())).unwrap();
        file.exit_on_bus_error(78, |path| format!("lost {} again\n", path.display())).unwrap();
        let cut = |path: &Path| std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        if what == "ours" {
            cut(&path);
            std::hint::black_box(file.maps().map(|(_, bytes)| u64::from(bytes[0])).sum::<u64>());
        } else {
            cut(&other);
            std::hint::black_box(unguarded[0]);
        }
        unreachable!("the process has ended");
    }

    #[test]
    fn the_file_is_named_and_other_bus_errors_end_the_process_as_before() {
        use std::os::unix::process::ExitStatusExt as _;

        if let Ok(what) = std::env::var(CHILD) {
            return child(&what);
        }
        let run = |what: &str| {
            let name = "the_file_is_named_and_other_bus_errors_end_the_process_as_before";
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([name, "--nocapture"]).env(CHILD, what).output().unwrap()
        };
        let ours = run("ours");
        let said = String::from_utf8_lossy(&ours.stderr);
        assert_eq!(ours.status.code(), Some(78), "{said}");
        assert!(said.ends_with("model.gguf again\n") && said.contains("lost "), "{said}");
        let others = run("others");
        let said = String::from_utf8_lossy(&others.stderr);
        assert_eq!(others.status.signal(), Some(libc::SIGBUS), "{said}");
        assert!(!said.contains("lost "), "{said}");
    }
}
