//! Models taken out of the store: all their files, what was downloaded of them in part, and folders that are then empty.

use std::fs::{self, File, TryLockError};
use std::path::{Component, Path, PathBuf};

use super::incoming::partial_path;
use super::name::ModelName;
use super::pypi::SCRATCH;
use super::store::{LOCK, Store};
use super::{existing, quant};
use crate::failure::{Failure, Kind, Result};

/// The files of a model that is in the store, whole or in part.
#[derive(Debug)]
pub(crate) struct Removable {
    /// What was meant.
    pub(crate) name: ModelName,
    files: Vec<PathBuf>,
}

impl Store {
    /// What `name` leads to in the store.
    pub(crate) fn removable(&self, name: &ModelName) -> Result<Removable> {
        let (name, parts) = match name {
            ModelName::Path(path) => {
                let in_store = self.place_of(path)?;
                match ModelName::from_store_path(&in_store) {
                    Some(name) => (name.clone(), self.places(&name)),
                    None => (name.clone(), vec![self.root().join(in_store)]),
                }
            }
            ModelName::HubQuant(choice) => {
                let files = self.begun_files_of(&choice.repo)?;
                let files: Vec<&str> = files.iter().map(String::as_str).collect();
                let file = quant::choose(&files, choice.quant.as_deref());
                let file = file.ok_or_else(|| not_here(name))?;
                let name = ModelName::Hub(choice.repo.file(file));
                (name.clone(), self.places(&name))
            }
            name => (name.clone(), self.places(name)),
        };
        let with_partial = parts.into_iter().flat_map(|path| [partial_path(&path), path]);
        // A link counts as itself, broken or not.
        let files: Vec<_> = with_partial.filter(|path| path.symlink_metadata().is_ok()).collect();
        if files.is_empty() { Err(not_here(&name)) } else { Ok(Removable { name, files }) }
    }

    /// The places of all files of a model.
    fn places(&self, name: &ModelName) -> Vec<PathBuf> {
        name.parts().iter().filter_map(|part| self.path_of(part)).collect()
    }

    /// Where in the store a file is.
    fn place_of(&self, path: &Path) -> Result<PathBuf> {
        let is_plain = |path: &Path| !path.components().any(|part| part == Component::ParentDir);
        let lexical = std::path::absolute(path).ok().filter(|path| is_plain(path));
        // A model's folder may be reached, or lie, on another disk by way of a link.
        let real = path.file_name().and_then(|name| Some(fs::canonicalize(folder_of(path)).ok()?.join(name)));
        let roots = [Some(self.root().to_owned()), fs::canonicalize(self.root()).ok()];
        let in_store = [lexical, real].into_iter().flatten().find_map(|path| {
            roots.iter().flatten().find_map(|root| path.strip_prefix(root).ok().map(Path::to_owned))
        });
        match in_store {
            Some(_) if path.is_dir() => {
                Err(Failure::new(Kind::Usage, format!("{} is a folder", path.display()))
                    .advice("name a model, as `metallic models` does"))
            }
            Some(in_store) => Ok(in_store),
            None => {
                existing(path)?;
                Err(Failure::new(Kind::Usage, format!("{} is not in the store", path.display()))
                    .advice("only downloaded models are removed: delete it as you delete other files"))
            }
        }
    }

    /// Removes the model, and returns how many bytes that frees.
    pub(crate) fn remove(&self, model: &Removable) -> Result<u64> {
        let in_use = || {
            Failure::new(Kind::General, format!("can't remove {}", model.name))
                .because("another metallic uses or downloads it")
                .advice("end that one first")
        };
        let folder = model.files.first().map_or(self.root(), |path| folder_of(path));
        let lock = self.lock(folder, &mut |_| Err(in_use()))?;
        for file in model.files.iter().filter_map(|path| File::open(path).ok()) {
            if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                return Err(in_use());
            }
        }
        let mut freed = 0;
        for path in &model.files {
            let cannot = |e| Failure::io(format!("can't remove {}", path.display()), e);
            let n_bytes = path.symlink_metadata().map_err(cannot)?.len();
            fs::remove_file(path).map_err(cannot)?;
            freed += n_bytes;
        }
        // What a killed pip left is nobody's while we have the lock.
        let _ = fs::remove_dir_all(folder.join(SCRATCH));
        if is_empty_but_for_lock(folder) {
            // Whoever waits for the lock sees that it is gone.
            let _ = fs::remove_file(folder.join(LOCK));
        }
        drop(lock);
        // A folder that still holds something is not removed.
        let up = folder.ancestors().take_while(|folder| *folder != self.root());
        let _ = up.map(fs::remove_dir).take_while(std::result::Result::is_ok).count();
        Ok(freed)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_empty_but_for_lock(folder: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else { return false };
    entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
}

fn not_here(name: &ModelName) -> Failure {
    Failure::new(Kind::NoModel, format!("{name} is not in the store"))
        .advice("`metallic models` lists what is")
}
