//! The local store: downloaded models, in the user's cache folder.
//!
//! ```text
//! ROOT/catalogue/NAME/FILE     ROOT/hf/OWNER/REPO[@REVISION]/FILE     ROOT/pypi/PACKAGE/VERSION/PATH
//! ```
//! A model's name and its place are each other's inverse ([`ModelName::store_path`]), so there is no
//! index that could disagree with the files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use super::name::ModelName;
use crate::failure::{Failure, Kind, Result};
use crate::terminal::{Terminal, human_bytes};

/// The environment variable that puts the store, and everything else we keep, somewhere else.
pub(crate) const CACHE_VARIABLE: &str = "METALLIC_CACHE";

/// The file in a folder whose lock is the folder's.
pub(super) const LOCK: &str = ".lock";

/// Times in a row that another process may remove a folder whose lock we just took.
const MAX_LOCKS: usize = 100;

/// Where downloaded models are.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// The folder for all that can be made again: `METALLIC_CACHE`, or `metallic` in the user's cache folder.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE_VARIABLE).filter(|folder| !folder.is_empty()) {
        // Absolute, because pip is started in another folder.
        return std::path::absolute(&folder)
            .map_err(|e| Failure::io(format!("can't use {CACHE_VARIABLE}={}", folder.display()), e));
    }
    let no_home = || {
        Failure::new(Kind::General, "can't find the home folder")
            .advice(format!("set HOME, or {CACHE_VARIABLE} to the folder for models"))
    };
    let base = etcetera::choose_base_strategy().map_err(|e| no_home().because(e))?;
    let folder = base.cache_dir().join("metallic");
    // An empty HOME would put it into the current folder.
    if folder.is_absolute() { Ok(folder) } else { Err(no_home()) }
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

    /// The folder of the store.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder that will hold `destination` and keeps other processes from writing there
    /// until the returned lock is dropped, or this process ends in whatever way.
    pub(super) fn lock_folder_of(&self, destination: &Path, terminal: &Terminal) -> Result<FolderLock> {
        let folder = destination.parent().unwrap_or(&self.root);
        self.lock(folder, &mut |file| {
            terminal.note(format_args!(
                "waiting for another metallic that is downloading to {}",
                folder.display()
            ));
            file.lock().map_err(|e| cannot_store(folder, e))
        })
    }

    /// The lock of a folder. If another process has it, it is up to `wait` to get it.
    pub(super) fn lock(
        &self,
        folder: &Path,
        wait: &mut dyn FnMut(&File) -> Result<()>,
    ) -> Result<FolderLock> {
        let cannot = |e| cannot_store(folder, e);
        let path = folder.join(LOCK);
        for _ in 0..MAX_LOCKS {
            fs::create_dir_all(folder).map_err(cannot)?;
            let file = File::create(&path).map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => wait(&file)?,
                Err(TryLockError::Error(e)) => return Err(cannot(e)),
            }
            // Who had it may have removed the folder.
            if is_at(&file, &path) {
                return Ok(FolderLock { folder: folder.to_owned(), _file: file });
            }
        }
        Err(cannot(io::Error::other("its lock is removed again and again")))
    }
}

/// Whether the open file is the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// On other systems a name stays while its file is open.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// An error if the disk has no room for so many more bytes in `folder`, which `what` needs.
pub(super) fn check_space(folder: &Path, n_bytes: u64, what: &str) -> Result<()> {
    // What can't tell, or tells of no disk at all, will tell when it is full.
    let Ok(disk) = fs4::statvfs(folder) else { return Ok(()) };
    let free = disk.available_space();
    if disk.total_space() == 0 || n_bytes <= free {
        return Ok(());
    }
    Err(Failure::new(Kind::General, format!("can't download {what} to {}", folder.display()))
        .because(format!("it takes {} more and the disk has {}", human_bytes(n_bytes), human_bytes(free)))
        .advice(format!("free some space, or set {CACHE_VARIABLE} to a folder on a larger disk")))
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
