//! In place of `hub` in a program built without it.

use std::path::Path;

use super::Job;
use super::name::HubFile;
use crate::failure::{Failure, Kind, Result};

/// Says that it can't.
pub(super) fn download(_: &Job<'_>, file: &HubFile, _: &Path) -> Result<()> {
    let HubFile { owner, repo, file } = file;
    Err(Failure::new(Kind::NoModel, format!("can't download hf:{owner}/{repo}/{file}"))
        .because("this program was built without downloads from Hugging Face")
        .advice("build it with the feature `hub`"))
}
