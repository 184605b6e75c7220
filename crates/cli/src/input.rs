//! Text that a user gives: through a pipe, or in a file.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal, Read};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use metallic::text::{MAX_TEMPLATE_BYTES, MAX_TEXT_BYTES};

use crate::args::ComputeArgs;
use crate::budget;
use crate::failure::{Failure, Kind, Result};
use crate::terminal::human_bytes;

/// What stands for standard input where a file's name is asked for.
pub(crate) const STDIN: &str = "-";

/// The share of the memory budget that a text may have: there are several copies of one on its way to the model. The keys
/// and values of its tokens take far more than this leaves.
const TEXT_SHARE: u64 = 32;

/// What may be read however small the budget is.
const MIN_TEXT_BYTES: usize = 64 << 10;

/// The longest text that is read. A longer one is an error before it takes memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) n_bytes: usize,
    advice: &'static str,
}

impl Limit {
    /// Of what a tokenizer takes.
    pub(crate) const TEXT: Self = Self { n_bytes: MAX_TEXT_BYTES, advice: "shorten it" };
    /// Of chat templates.
    pub(crate) const TEMPLATE: Self =
        Self { n_bytes: MAX_TEMPLATE_BYTES, advice: "no chat template is as long" };

    /// Of texts for a model that is to run within a budget.
    pub(crate) fn within(args: &ComputeArgs) -> Self {
        Self::share(args, TEXT_SHARE)
    }

    /// One part in `share` of the budget, if there is one.
    pub(crate) fn share(args: &ComputeArgs, share: u64) -> Self {
        let Some(budget) = budget::to_plan_for(args) else { return Self::TEXT };
        let n_bytes = usize::try_from(budget.ram_bytes / share).unwrap_or(usize::MAX).max(MIN_TEXT_BYTES);
        if n_bytes >= MAX_TEXT_BYTES {
            return Self::TEXT;
        }
        Self { n_bytes, advice: "shorten it or allow more with --ram, of which a text may have a share" }
    }

    /// What to say of a longer text.
    pub(crate) fn failure(self, name: &str) -> Failure {
        let Self { n_bytes, advice } = self;
        let what = format!(
            "{name} is longer than the {} ({n_bytes} bytes) that are read",
            human_bytes(n_bytes as u64)
        );
        Failure::new(Kind::General, what).advice(advice)
    }
}

/// All of standard input; `None` if it is a terminal, or if nothing comes for as long as `patience`, which is warned of.
pub(crate) fn piped(limit: Limit, patience: Option<Duration>) -> Result<Option<String>> {
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
    stdin(limit).map(Some)
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

fn stdin(limit: Limit) -> Result<String> {
    read_text(io::stdin().lock(), "standard input", limit)
}

/// All of a text file; `-` is standard input.
pub(crate) fn file(path: &Path, limit: Limit) -> Result<String> {
    if path == Path::new(STDIN) {
        return stdin(limit);
    }
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Failure::io(format!("can't open {name}"), e))?;
    read_text(file, &name, limit)
}

fn read_text(source: impl Read, name: &str, limit: Limit) -> Result<String> {
    let mut bytes = Vec::new();
    let read = source.take(limit.n_bytes as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::io(format!("can't read {name}"), e))?;
    if bytes.len() > limit.n_bytes {
        return Err(limit.failure(name));
    }
    String::from_utf8(bytes).map_err(|e| {
        Failure::new(Kind::General, format!("{name} is no text"))
            .because(e.utf8_error())
            .advice("convert it to UTF-8")
    })
}

/// What a file or a pipe ends with is the end of a line, not a part of the text.
pub(crate) fn strip_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
