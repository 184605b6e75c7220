//! `metallic inspect`: what is in a model file.

mod json;
mod text;

use std::io::{self, BufWriter, Write};

use crate::args::InspectArgs;
use crate::failure::{Failure, Result};
use crate::fetch::Fetcher;
use crate::model_file;

/// Shows the file's header, metadata and tensors.
pub(crate) fn run(args: &InspectArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(args.model.name())?.path;
    let file = model_file::open_for_inspection(&path, fetcher.terminal)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.check {
        let unusable = |error| model_file::unusable(&path, error);
        let unused = metallic::model::unused_tensors(&file.gguf()).map_err(unusable)?;
        let unread = metallic::model::unread_keys(&file.gguf()).map_err(unusable)?;
        text::write_check(&mut out, &file, &unused, &unread)
    } else if args.json {
        json::write(&mut out, &file)
    } else {
        text::write(&mut out, &file, fetcher.terminal)
    };
    written.and_then(|()| out.flush()).map_err(Failure::output)
}
