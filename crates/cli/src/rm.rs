//! `metallic rm`: remove models from the store.

use std::io::{self, Write};

use crate::args::RmArgs;
use crate::failure::{Failure, Result};
use crate::fetch::Removable;
use crate::fetch::store::Store;
use crate::terminal::human_bytes;

/// Removes the models, or none if one of them isn't there.
pub(crate) fn run(args: &RmArgs) -> Result<()> {
    let store = Store::of_user()?;
    let mut models: Vec<Removable> = Vec::new();
    for name in &args.models {
        let model = store.removable(name)?;
        if models.iter().all(|other| other.name != model.name) {
            models.push(model);
        }
    }
    for model in models {
        let freed = human_bytes(store.remove(&model)?);
        writeln!(io::stdout(), "removed {}: {freed} are free again", model.name).map_err(Failure::output)?;
    }
    Ok(())
}
