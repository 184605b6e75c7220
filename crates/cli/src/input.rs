//! Text that a user gives: as an argument, through a pipe, or in a file.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use metallic::text::MAX_TEXT_BYTES;

use crate::failure::{Failure, Kind, Result};

/// The argument, or else all of standard input. `what` is what is wanted, such as `prompt`.
pub(crate) fn argument_or_stdin(argument: Option<&str>, what: &str) -> Result<String> {
    if let Some(text) = argument {
        return Ok(text.to_owned());
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::new(Kind::Usage, format!("no {what}"))
            .advice(format!("give the {what} as an argument, or send it through a pipe")));
    }
    read_text(stdin.lock(), "standard input")
}

/// All of a text file.
pub(crate) fn file(path: &Path) -> Result<String> {
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
