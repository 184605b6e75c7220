//! `metallic models`: what is in the store, and what has a short name.

use std::io;

use crate::failure::{Failure, Result};
use crate::fetch::ModelName;
use crate::fetch::catalogue;
use crate::fetch::store::Store;
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Lists the models.
pub(crate) fn run(store: &Store, terminal: &Terminal) -> Result<()> {
    let stored = store.list()?;
    let mut table = Table::new([("MODEL", Align::Left), ("SIZE", Align::Right), ("WHERE", Align::Left)]);
    for entry in catalogue::ENTRIES {
        let is_here = stored.iter().any(|stored| stored.name == ModelName::Catalogue(entry));
        if !is_here {
            let place = format!("not downloaded: {} ({})", entry.about, entry.licence);
            table.push([entry.name.to_owned(), human_bytes(entry.n_bytes), place]);
        }
    }
    for stored in stored {
        let place = stored.path.display().to_string();
        table.push([stored.name.to_string(), human_bytes(stored.n_bytes), place]);
    }
    let heading = |line: &str| terminal.paint(Style::Bold, line);
    table.write(&mut io::stdout().lock(), heading).map_err(Failure::output)
}
