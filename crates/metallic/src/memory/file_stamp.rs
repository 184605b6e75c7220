//! Whether a file is still the one that was opened: its size, its times of change and its number say so.
//!
//! What they can't say is in `docs/memory.md`. Reading all of a file again would say more, and take as long as loading it.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::{Error, FileChange, Result};

/// A file as it was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct FileStamp {
    path: PathBuf,
    file: Arc<File>,
    n_bytes: u64,
    modified: Option<SystemTime>,
    number: Option<(u64, u64)>,
    /// When the system last noted a change, which no program can set back. Not known while the name is away: to rename
    /// a file is such a change.
    changed: Arc<Mutex<Option<(i64, i64)>>>,
}

impl FileStamp {
    /// Of a file that has just been opened.
    ///
    /// # Errors
    /// The system's reason for not telling.
    pub(super) fn new(path: &Path, file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            n_bytes: metadata.len(),
            modified: metadata.modified().ok(),
            number: number(&metadata),
            changed: Arc::new(Mutex::new(changed(&metadata))),
        })
    }

    /// Whether the file is unchanged and the one that has the name. That none has the name is no change: a file that
    /// was removed stays whole as long as it is open or mapped.
    ///
    /// # Errors
    /// [`Error::FileChanged`]; [`Error::Open`] if the system does not tell.
    pub(crate) fn check(&self) -> Result<()> {
        let found = self.file.metadata().and_then(|now| match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.change(&now, None)),
            named => Ok(self.change(&now, Some(&named?))),
        });
        match found {
            Ok(None) => Ok(()),
            Ok(Some(change)) => Err(Error::FileChanged { path: self.path.clone(), change }),
            Err(source) => Err(Error::Open { path: self.path.clone(), source }),
        }
    }

    /// What has happened, if the file is now like this, and like `named` what has its name.
    fn change(&self, now: &Metadata, named: Option<&Metadata>) -> Option<FileChange> {
        let has_name = named.is_some_and(|named| number(named) == self.number);
        let mut noted = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_noted = has_name && noted.is_some() && *noted != changed(now);
        *noted = if has_name { noted.or(changed(now)) } else { None };
        if named.is_some() && !has_name {
            Some(FileChange::Replaced)
        } else if now.len() < self.n_bytes {
            Some(FileChange::Cut)
        } else if now.len() > self.n_bytes || now.modified().ok() != self.modified {
            Some(FileChange::Written)
        } else {
            is_noted.then_some(FileChange::Altered)
        }
    }
}

/// What the file system knows a file by, whatever its name.
#[cfg(unix)]
fn number(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// See [`FileStamp::changed`], in seconds and nanoseconds.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> Option<(i64, i64)> {
    use std::os::unix::fs::MetadataExt;

    Some((metadata.ctime(), metadata.ctime_nsec()))
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> Option<(i64, i64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happens_to_a_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let stamp = || {
            fs::write(&path, [7; 100]).unwrap();
            FileStamp::new(&path, File::open(&path).unwrap()).unwrap()
        };
        let change = |stamp: &FileStamp| match stamp.check() {
            Ok(()) => None,
            Err(Error::FileChanged { path: found, change }) => {
                assert_eq!(found, path);
                Some(change)
            }
            Err(other) => panic!("{other}"),
        };
        let open = || fs::File::options().write(true).open(&path).unwrap();

        let before = stamp();
        assert_eq!(change(&before), None);
        open().set_len(99).unwrap();
        assert_eq!(change(&before), Some(FileChange::Cut));
        open().set_len(101).unwrap();
        assert_eq!(change(&before), Some(FileChange::Written));

        let before = stamp();
        let later = SystemTime::now() + std::time::Duration::from_secs(10);
        open().set_modified(later).unwrap();
        assert_eq!(change(&before), Some(FileChange::Written));

        #[cfg(unix)]
        {
            let before = stamp();
            let other = folder.path().join("other");
            fs::write(&other, [7; 100]).unwrap();
            fs::rename(&other, &path).unwrap();
            assert_eq!(change(&before), Some(FileChange::Replaced));
        }
        let before = stamp();
        fs::remove_file(&path).unwrap();
        assert_eq!(change(&before), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_time_that_was_set_back_does_not_hide_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("file"), folder.path().join("away"));
        fs::write(&path, [7; 100]).unwrap();
        let open = |path: &Path| File::options().write(true).open(path).unwrap();
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 30);
        let overwrite = |path: &Path| {
            // Coarse clocks tick some hundred times a second.
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::io::Write::write_all(&mut open(path), &[8; 100]).unwrap();
            open(path).set_modified(modified).unwrap();
        };
        overwrite(&path);
        let stamp = FileStamp::new(&path, File::open(&path).unwrap()).unwrap();
        let change = || match stamp.check() {
            Err(Error::FileChanged { change, .. }) => Some(change),
            other => other.map(|()| None).unwrap(),
        };
        // To give a file another name and its own again is a change in the system's eyes, and not in ours.
        fs::rename(&path, &away).unwrap();
        assert_eq!(change(), None);
        fs::rename(&away, &path).unwrap();
        assert_eq!(change(), None);

        overwrite(&path);
        assert_eq!(change(), Some(FileChange::Altered));
        // Under whatever name.
        fs::rename(&path, &away).unwrap();
        assert_eq!(change(), None);
        open(&away).set_modified(SystemTime::now()).unwrap();
        assert_eq!(change(), Some(FileChange::Written));
    }
}
