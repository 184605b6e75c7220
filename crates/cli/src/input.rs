//! Text that a user gives: through a pipe, or in a file.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use metallic::text::MAX_TEXT_BYTES;

use crate::failure::{Failure, Kind, Result};

/// What stands for standard input where a file's name is asked for.
pub(crate) const STDIN: &str = "-";

/// All of standard input; `None` if it is a terminal, or if nothing comes for as long as `patience`, which is warned of.
pub(crate) fn piped(patience: Option<Duration>) -> Result<Option<String>> {
    if io::stdin().is_terminal() {
        return Ok(None);
    }
    if let Some(patience) = patience
        && !begins_within(patience)
    {
        tracing::warn!(
            "nothing came on standard input in {} s, so the prompt is answered without it; \
             `-f -` waits longer, `< /dev/null` not at all",
            patience.as_secs()
        );
        return Ok(None);
    }
    stdin().map(Some)
}

/// Waits until there is something to read, or the end. No system-independent call waits for that, so a thread does; if it
/// waits in vain, it ends with the process.
fn begins_within(patience: Duration) -> bool {
    let (sender, begun) = mpsc::channel();
    let wait = move || {
        // An error comes again where the text is read.
        let _ = io::stdin().lock().fill_buf();
        let _ = sender.send(());
    };
    if let Err(error) = thread::Builder::new().spawn(wait) {
        tracing::info!("standard input is waited for, however long it takes: {error}");
        return true;
    }
    begun.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
}

fn stdin() -> Result<String> {
    read_text(io::stdin().lock(), "standard input")
}

/// All of a text file; `-` is standard input.
pub(crate) fn file(path: &Path) -> Result<String> {
    if path == Path::new(STDIN) {
        return stdin();
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Failure::io(format!("can't open {name}"), e))?;
    read_text(file, &name)
}

fn read_text(source: impl Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    // One byte more than a tokenizer takes: enough to be refused there, and no more.
    let read = source.take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::io(format!("can't read {name}"), e))?;
    String::from_utf8(bytes).map_err(|e| {
        Failure::new(Kind::General, format!("{name} is no text"))
            .because(e.utf8_error())
            .advice("convert it to UTF-8")
    })
}
