//! `metallic models`: what is in the store, and what has a short name.

use std::io::{self, Write};

use serde_json::json;

use crate::args::ModelsArgs;
use crate::failure::{Failure, Result, one_line};
use crate::fetch::store::Store;
use crate::fetch::{Listing, ModelName, Stored, catalogue};
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Lists the models.
pub(crate) fn run(args: &ModelsArgs, terminal: &Terminal) -> Result<()> {
    let Listing { models: stored, unfinished } = Store::of_user()?.list()?;
    let is_here = |entry| stored.iter().any(|stored| stored.name == ModelName::Catalogue(entry));
    let elsewhere = catalogue::ENTRIES.iter().filter(|entry| !is_here(entry));
    for Stored { name, n_bytes, .. } in &unfinished {
        let n_bytes = human_bytes(*n_bytes);
        terminal.note(format_args!(
            "{name} is unfinished, with {n_bytes}: `metallic pull` finishes it, `metallic rm` removes it"
        ));
    }
    let mut out = io::stdout().lock();
    if args.json {
        let elsewhere = elsewhere.map(|entry| {
            json!({ "name": entry.name, "n_bytes": entry.n_bytes, "path": null, "n_files": 1, "n_here": 0 })
        });
        let here = stored.iter().map(|stored| {
            json!({
                "name": stored.name.to_string(),
                "n_bytes": stored.n_bytes,
                "path": stored.path.to_string_lossy(),
                "n_files": stored.n_files,
                "n_here": stored.n_here,
            })
        });
        let written = serde_json::to_writer_pretty(&mut out, &elsewhere.chain(here).collect::<Vec<_>>());
        return written.map_err(io::Error::from).and_then(|()| writeln!(out)).map_err(Failure::output);
    }
    let mut table = Table::new([("MODEL", Align::Left), ("SIZE", Align::Right), ("WHERE", Align::Left)]);
    for entry in elsewhere {
        let place = format!("not downloaded: {} ({})", entry.about, entry.licence);
        table.push([entry.name.to_owned(), human_bytes(entry.n_bytes), place]);
    }
    for stored in &stored {
        let path = one_line(&stored.path.display().to_string());
        let place = match stored.n_files {
            1 => path,
            n if n == stored.n_here => format!("{path} and {} more", n - 1),
            n => format!(
                "{path}: {} of {n} shards are missing, `metallic pull` brings them",
                n - stored.n_here
            ),
        };
        table.push([one_line(&stored.name.to_string()), human_bytes(stored.n_bytes), place]);
    }
    let heading = |line: &str| terminal.paint(Style::Bold, line);
    table.write(&mut out, heading).map_err(Failure::output)
}
