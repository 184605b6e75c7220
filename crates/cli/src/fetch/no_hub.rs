//! In place of `hub` in a program built without it.

use std::path::Path;

use super::hub_name::{HubFile, HubRepo};
use super::{Job, RepoFile};
use crate::failure::{Failure, Kind, Result};
use crate::interrupt::Heed;
use crate::terminal::Terminal;

/// Says that it can't, if there is something to download.
pub(super) fn download(_: &Job<'_>, files: &[(&HubFile, &Path)]) -> Result<()> {
    files.first().map_or(Ok(()), |(file, _)| Err(cannot(format!("can't download {file}"))))
}

/// Says that it can't.
pub(super) fn list(repo: &HubRepo, _: &Terminal, _: &Heed<'_>) -> Result<Vec<RepoFile>> {
    Err(cannot(format!("can't list the files of {repo}")))
}

/// Says that it can't.
pub(super) fn has_changed(file: &HubFile, _: &Path, _: &Terminal, _: &Heed<'_>) -> Result<bool> {
    Err(cannot(format!("can't ask for {file}")))
}

fn cannot(what: String) -> Failure {
    Failure::new(Kind::NoModel, what)
        .because("this program was built without downloads from Hugging Face")
        .advice("build it with the feature `hub`")
}
