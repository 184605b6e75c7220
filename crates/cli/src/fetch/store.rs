//! The local store: downloaded models, in the user's cache folder.
//!
//! ```text
//! ROOT/catalogue/NAME/FILE           ROOT/hf/OWNER/REPO/FILE           ROOT/pypi/PACKAGE/VERSION/PATH
//! ```
//! A model's name and its place are each other's inverse ([`ModelName::store_path`]), so there is no
//! index that could disagree with the files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use super::name::ModelName;
use crate::failure::{Failure, Kind, Result};
use crate::terminal::Terminal;

/// The environment variable that puts the store, and everything else we keep, somewhere else.
pub(crate) const CACHE_VARIABLE: &str = "METALLIC_CACHE";

/// Folders deeper than this below the root are not looked at: hub files rarely nest at all.
const MAX_DEPTH: usize = 16;

/// Where downloaded models are.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A model in the store.
#[derive(Debug)]
pub(crate) struct Stored {
    /// What to write for it on the command line.
    pub(crate) name: ModelName,
    /// The file.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) n_bytes: u64,
}

/// The folder for all that can be made again: `METALLIC_CACHE`, or `metallic` in the user's cache folder.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE_VARIABLE).filter(|folder| !folder.is_empty()) {
        // Absolute, because pip is started in another folder.
        return std::path::absolute(&folder)
            .map_err(|e| Failure::io(format!("can't use {CACHE_VARIABLE}={}", folder.display()), e));
    }
    let base = etcetera::choose_base_strategy().map_err(|e| {
        Failure::new(Kind::General, "can't find the home folder")
            .because(e)
            .advice(format!("set HOME, or {CACHE_VARIABLE} to the folder for models"))
    })?;
    Ok(base.cache_dir().join("metallic"))
}

/// A failure to write `path` in the store.
pub(super) fn cannot_store(path: &Path, error: io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("free some space, or set {CACHE_VARIABLE} to a folder on a larger disk")
        }
        _ => format!("set {CACHE_VARIABLE} to a folder that can be written"),
    };
    Failure::new(Kind::General, format!("can't write {}", path.display())).because(error).advice(advice)
}

impl Store {
    /// The store of this user.
    pub(crate) fn of_user() -> Result<Self> {
        Ok(Store { root: cache_folder()?.join("models") })
    }

    /// Where the store keeps, or would keep, the model. `None` for a path.
    pub(crate) fn path_of(&self, name: &ModelName) -> Option<PathBuf> {
        name.store_path().map(|path| self.root.join(path))
    }

    /// All models in the store, by name.
    pub(crate) fn list(&self) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        self.collect(&self.root, 0, &mut found)
            .map_err(|e| Failure::io(format!("can't read the store {}", self.root.display()), e))?;
        found.sort_by_cached_key(|stored| stored.name.to_string());
        Ok(found)
    }

    fn collect(&self, folder: &Path, depth: usize, found: &mut Vec<Stored>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() && !hidden && depth < MAX_DEPTH {
                self.collect(&path, depth + 1, found)?;
            } else if metadata.is_file() && path.extension().is_some_and(|end| end == "gguf") {
                let name = path.strip_prefix(&self.root).ok().and_then(ModelName::from_store_path);
                found.extend(name.map(|name| Stored { name, path, n_bytes: metadata.len() }));
            }
        }
        Ok(())
    }

    /// Makes the folder that will hold `destination` and keeps other processes from writing there
    /// until the returned lock is dropped, or this process ends in whatever way.
    pub(crate) fn lock_folder_of(&self, destination: &Path, terminal: &Terminal) -> Result<FolderLock> {
        let folder = destination.parent().unwrap_or(&self.root);
        let cannot = |e| cannot_store(folder, e);
        fs::create_dir_all(folder).map_err(cannot)?;
        let file = File::create(folder.join(".lock")).map_err(cannot)?;
        if file.try_lock().is_err() {
            terminal.note(format_args!(
                "waiting for another metallic that is downloading to {}",
                folder.display()
            ));
            file.lock().map_err(cannot)?;
        }
        Ok(FolderLock { folder: folder.to_owned(), _file: file })
    }
}

/// Proof that no other process writes to a folder of the store.
#[derive(Debug)]
pub(crate) struct FolderLock {
    folder: PathBuf,
    _file: File,
}

impl FolderLock {
    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}
