//! What is in the store. Whatever is wrong with a part of it, the rest is listed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hub_name::HubRepo;
use super::incoming::final_path;
use super::name::{HUB_FOLDER, MAX_FOLDERS, ModelName};
use super::store::Store;
use crate::failure::{Failure, Result};

/// Folders deeper than this below the root are not looked at. Nothing is put there: above a model's own folders are
/// at most those of its kind, owner and repository.
const MAX_DEPTH: usize = MAX_FOLDERS + 3;

/// A model in the store.
#[derive(Debug)]
pub(crate) struct Stored {
    /// What the user can write for it: its name, or the path of a file that no name leads to.
    pub(crate) name: ModelName,
    /// Its file; of one in shards, the first that is here.
    pub(crate) path: PathBuf,
    /// The size of all its files that are here.
    pub(crate) n_bytes: u64,
    /// The files that it has.
    pub(crate) n_files: usize,
    /// Those of them that are here.
    pub(crate) n_here: usize,
}

/// What is in the store.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The models.
    pub(crate) models: Vec<Stored>,
    /// Those that came in part.
    pub(crate) unfinished: Vec<Stored>,
}

impl Store {
    /// All that is in the store, by name.
    pub(crate) fn list(&self) -> Result<Listing> {
        let files = self.files(self.root())?;
        let unfinished = files.iter().filter_map(|(path, n_bytes)| Some((final_path(path)?, *n_bytes)));
        let unfinished = self.models(unfinished);
        let whole = files.into_iter().filter(|(path, _)| final_path(path).is_none());
        Ok(Listing { models: self.models(whole), unfinished })
    }

    /// The models that files belong to.
    fn models(&self, files: impl Iterator<Item = (PathBuf, u64)>) -> Vec<Stored> {
        let mut models: BTreeMap<String, Stored> = BTreeMap::new();
        for (path, n_bytes) in files {
            let name = path.strip_prefix(self.root()).ok().and_then(ModelName::from_store_path);
            let (name, n_files) = name.unwrap_or_else(|| ModelName::Path(path.clone())).first_part();
            let empty = Stored { name: name.clone(), path, n_bytes: 0, n_files, n_here: 0 };
            let stored = models.entry(name.to_string()).or_insert(empty);
            stored.n_bytes += n_bytes;
            stored.n_here += 1;
        }
        models.into_values().collect()
    }

    /// The files of a repository that are here, as their paths in it.
    pub(super) fn files_of(&self, repo: &HubRepo) -> Result<Vec<String>> {
        self.paths_in(repo, |path| final_path(&path).is_none().then_some(path))
    }

    /// The files of a repository that are here, whole or in part, as their paths in it.
    pub(super) fn begun_files_of(&self, repo: &HubRepo) -> Result<Vec<String>> {
        self.paths_in(repo, |path| final_path(&path).or(Some(path)))
    }

    fn paths_in(&self, repo: &HubRepo, wanted: impl Fn(PathBuf) -> Option<PathBuf>) -> Result<Vec<String>> {
        let folder = self.root().join(HUB_FOLDER).join(repo.folder());
        let files = self.files(&folder)?.into_iter().filter_map(|(path, _)| wanted(path));
        let in_repo =
            files.filter_map(|path| Some(path.strip_prefix(&folder).ok()?.to_str()?.replace('\\', "/")));
        Ok(in_repo.collect())
    }

    /// All files below a folder but the store's own, in order, each with its size.
    fn files(&self, folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        match fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::io(format!("can't read the store {}", folder.display()), e)),
            Ok(entries) => collect(entries, folder, 0, &mut files),
        }
        files.sort();
        Ok(files)
    }
}

fn collect(entries: fs::ReadDir, folder: &Path, depth: usize, files: &mut Vec<(PathBuf, u64)>) {
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(e) => {
                skip(folder, &e);
                continue;
            }
        };
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && leads_back(&path, folder) => {}
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => match fs::read_dir(&path) {
                Ok(entries) => collect(entries, &path, depth + 1, files),
                Err(e) => skip(&path, &e),
            },
            Ok(metadata) if metadata.is_file() => files.push((path, metadata.len())),
            Ok(_) => {}
            Err(e) => skip(&path, &e),
        }
    }
}

/// Whether a folder is a link to one that it is in.
fn leads_back(path: &Path, folder: &Path) -> bool {
    let canonical = |path| fs::canonicalize(path).ok();
    path.is_symlink() && canonical(path).zip(canonical(folder)).is_some_and(|(to, from)| from.starts_with(to))
}

/// Says what is left out.
fn skip(path: &Path, error: &io::Error) {
    tracing::warn!("can't read {} in the store: {error}", path.display());
}
