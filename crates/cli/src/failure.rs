//! How the program says that it could not do something: one line on standard error and an exit code.
//!
//! A line reads `error: what: cause: cause: what to do`. Everything a user can bring about ends here;
//! a panic is a bug and says so (see `main.rs`).

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// What kind of failure it was, which decides the exit code.
#[cfg_attr(not(unix), allow(dead_code, reason = "only Unix has the signals"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything without a code of its own.
    General = 1,
    /// The command line asks for something that can't be done. clap exits with the same code.
    Usage = 2,
    /// The file is not a model that this program can use.
    BadModel = 3,
    /// The model is not there and could not be fetched.
    NoModel = 4,
    /// The model's file was cut short, changed or replaced while it was in use.
    ModelChanged = 5,
    /// A GPU was lost while it computed.
    DeviceLost = 6,
    /// SIGHUP: the terminal has gone. This code and the next two are 128 and the signal's number, as shells have it.
    HungUp = 129,
    /// Ctrl-C.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
    /// Whoever read our output has closed it, as `head` does. Nothing to report.
    OutputClosed = 0,
}

/// The exit codes, as `--help` shows them.
pub(crate) const EXIT_CODES: &str = "  0    done
  1    failed: an input or output error, not enough memory, a full context
  2    the command line is wrong
  3    the file is not a model that metallic can use
  4    the model was not found, or could not be downloaded
  5    the model's file was cut short, changed or replaced while it was in use
  6    the GPU was lost while it computed
  101  a bug in metallic
  129  stopped by SIGHUP: the terminal was closed
  130  stopped by Ctrl-C
  143  stopped by SIGTERM";

/// A failure on its way to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    what: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
    advice: Option<String>,
    /// Whether the user has read of it.
    is_told: bool,
}

/// Result of everything in this program that can fail.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of this kind; `what` says what could not be done, and where.
    pub(crate) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Failure { kind, what: what.into(), cause: None, advice: None, is_told: false }
    }

    /// A failure that an error tells all about.
    pub(crate) fn of(kind: Kind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Failure::new(kind, "").because(error)
    }

    /// Adds why it failed.
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds what the user can do about it.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds what the user can do beside what was advised.
    pub(crate) fn or_advice(mut self, advice: &str) -> Self {
        self.advice = Some(self.advice.map_or(advice.to_owned(), |before| format!("{before}; {advice}")));
        self
    }

    /// Adds what the user can do about it, where there is something to say.
    pub(crate) fn maybe_advice(mut self, advice: Option<String>) -> Self {
        self.advice = advice.or(self.advice);
        self
    }

    /// The same, which the user has read of already: what is left of it is the exit code.
    pub(crate) fn told(mut self) -> Self {
        self.is_told = true;
        self
    }

    /// A failure to write the program's output.
    pub(crate) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Kind::OutputClosed, "the output was closed");
        }
        Failure::new(Kind::General, "can't write the output").because(error)
    }

    /// A failure to read or write a file, with advice for the causes that have a remedy.
    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free some space on that disk"),
            io::ErrorKind::PermissionDenied => Some("check who may read and write there"),
            io::ErrorKind::NotFound => Some("check the path"),
            _ => None,
        };
        Failure::new(Kind::General, what).because(error).maybe_advice(advice.map(str::to_owned))
    }

    /// The user pressed Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Failure::new(Kind::Interrupted, "interrupted")
    }

    /// Why it failed, if that is of this type.
    #[cfg(feature = "serve")]
    pub(crate) fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.cause.as_ref()?.downcast_ref()
    }

    /// What kind of failure this is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the user has something to read about it.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_told
            || matches!(self.kind, Kind::OutputClosed | Kind::HungUp | Kind::Interrupted | Kind::Terminated)
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.what.clone();
        let mut cause = self.cause.as_deref().map(|c| c as &dyn Error);
        while let Some(error) = cause {
            let text = error.to_string();
            // An error that already tells its source in its own text adds nothing by telling it again.
            if !line.ends_with(&text) {
                if !line.is_empty() {
                    line.push_str(": ");
                }
                line.push_str(&text);
            }
            cause = error.source();
        }
        if let Some(advice) = &self.advice {
            line.push_str(": ");
            line.push_str(advice);
        }
        f.write_str(&one_line(&line))
    }
}

/// The text with line breaks and control characters replaced, so that nothing in a file's names can
/// forge a second line or move the cursor.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_causes_and_advice() {
        let cause = io::Error::other("line one\nline two\x1b[31m");
        let failure = Failure::new(Kind::BadModel, "can't read a.gguf").because(cause).advice("try again");
        assert_eq!(failure.to_string(), "can't read a.gguf: line one; line two\u{fffd}[31m: try again");
    }

    #[test]
    fn nested_failures_tell_each_cause_once() {
        let inner = Failure::new(Kind::General, "inner").because(io::Error::other("root"));
        let outer = Failure::new(Kind::General, "outer").because(inner);
        assert_eq!(outer.to_string(), "outer: inner: root");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let failure = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert!(failure.is_silent());
        assert_eq!(failure.kind() as u8, 0);
    }
}
