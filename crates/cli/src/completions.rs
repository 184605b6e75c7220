//! `metallic completions`: a script for a shell.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::{Cli, CompletionsArgs};
use crate::failure::{Failure, Result};

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    // clap_complete panics if it can't write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "metallic", &mut script);
    io::stdout().write_all(&script).map_err(Failure::output)
}
