//! Whether a file is still the one that was opened: its size, time of change and number say so.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};

/// What has happened to a file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileChange {
    /// It is shorter.
    Cut,
    /// It was written to.
    Written,
    /// Another file has its name.
    Replaced,
}

/// A file as it was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct FileStamp {
    path: PathBuf,
    n_bytes: u64,
    modified: Option<SystemTime>,
    number: Option<(u64, u64)>,
}

impl FileStamp {
    /// Of a file that has just been opened.
    pub(super) fn new(path: &Path, metadata: &Metadata) -> Self {
        let (n_bytes, modified) = (metadata.len(), metadata.modified().ok());
        Self { path: path.to_owned(), n_bytes, modified, number: number(metadata) }
    }

    /// Whether the file that has the name now is the same, unchanged. That none has the name is no change: a file that
    /// was removed stays whole as long as it is open or mapped.
    ///
    /// # Errors
    /// [`Error::FileChanged`]; [`Error::Open`] if the system does not tell.
    pub(crate) fn check(&self) -> Result<()> {
        let change = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Open { path: self.path.clone(), source }),
            Ok(now) => self.change(&now),
        };
        change.map_or(Ok(()), |change| Err(Error::FileChanged { path: self.path.clone(), change }))
    }

    fn change(&self, now: &Metadata) -> Option<FileChange> {
        if number(now) != self.number {
            Some(FileChange::Replaced)
        } else if now.len() < self.n_bytes {
            Some(FileChange::Cut)
        } else if now.len() > self.n_bytes || now.modified().ok() != self.modified {
            Some(FileChange::Written)
        } else {
            None
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

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cut => "was cut short",
            Self::Written => "was written to",
            Self::Replaced => "was replaced by another",
        })
    }
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
            FileStamp::new(&path, &fs::metadata(&path).unwrap())
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
}
