//! A file on its way into the store: written under a temporary name, checked, then renamed.
//!
//! The name that a model has in the store therefore never belongs to anything but a whole, checked
//! file, whenever the program or the machine stops.

use std::fs::{self, File};
use std::io::Write as _;
#[cfg(feature = "hub")]
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::store::cannot_store;
use crate::failure::{Failure, Kind, Result};

/// How the temporary name ends. No model's name does, so such a file is never listed as one.
pub(super) const PARTIAL_SUFFIX: &str = ".partial";

/// What a file must be, as far as its source tells.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Its size.
    pub(crate) n_bytes: Option<u64>,
    /// Its SHA-256 in lower-case hexadecimal.
    pub(crate) sha256: Option<String>,
}

/// A file being written. Dropped before [`Incoming::finish`], it leaves nothing behind unless
/// [`Incoming::keep`] was called.
#[derive(Debug)]
pub(crate) struct Incoming {
    destination: PathBuf,
    partial: PathBuf,
    file: File,
    hasher: Sha256,
    n_bytes: u64,
    keep: bool,
}

impl Incoming {
    /// Starts the file that will become `destination`, whose folder the caller has locked.
    pub(crate) fn create(destination: &Path) -> Result<Self> {
        let partial = partial_path(destination);
        let file = File::create(&partial).map_err(|e| cannot_store(&partial, e))?;
        Ok(Self::with(destination, partial, file))
    }

    /// Goes on with what an earlier attempt left, or starts.
    #[cfg(feature = "hub")]
    pub(crate) fn resume(destination: &Path) -> Result<Self> {
        let partial = partial_path(destination);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&partial)
            .map_err(|e| cannot_store(&partial, e))?;
        let mut incoming = Self::with(destination, partial, file);
        incoming.hash_what_is_there().map_err(|e| cannot_store(&incoming.partial, e))?;
        Ok(incoming)
    }

    fn with(destination: &Path, partial: PathBuf, file: File) -> Self {
        let destination = destination.to_owned();
        Incoming { destination, partial, file, hasher: Sha256::new(), n_bytes: 0, keep: false }
    }

    #[cfg(feature = "hub")]
    fn hash_what_is_there(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = self.file.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..n]);
            self.n_bytes += n as u64;
        }
    }

    /// Bytes written so far, those of earlier attempts included.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| cannot_store(&self.partial, e))?;
        self.hasher.update(bytes);
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there and starts again.
    #[cfg(feature = "hub")]
    pub(crate) fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|e| cannot_store(&self.partial, e))?;
        self.hasher = Sha256::new();
        self.n_bytes = 0;
        Ok(())
    }

    /// From now on what was written stays for [`Incoming::resume`] if this is dropped.
    #[cfg(feature = "hub")]
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }

    /// Checks the file and gives it its name.
    pub(crate) fn finish(mut self, expected: &Expected) -> Result<()> {
        self.keep = false;
        let digest = hexadecimal(&self.hasher.finalize_reset());
        let wrong = |what: String| {
            Failure::new(Kind::NoModel, what)
                .advice("the copy was thrown away: try again, and if it happens again tell whoever publishes the file")
        };
        if let Some(n_bytes) = expected.n_bytes.filter(|n| *n != self.n_bytes) {
            return Err(wrong(format!("the download has {} bytes and should have {n_bytes}", self.n_bytes)));
        }
        if let Some(sha256) = expected.sha256.as_ref().filter(|sha256| **sha256 != digest) {
            return Err(wrong(format!("the download's SHA-256 is {digest} and should be {sha256}")));
        }
        self.file.sync_all().map_err(|e| cannot_store(&self.partial, e))?;
        fs::rename(&self.partial, &self.destination).map_err(|e| cannot_store(&self.destination, e))?;
        // The partial name is gone: nothing for drop to remove.
        self.keep = true;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing better to do if this fails: the name says that it is no model.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// A checksum as people compare it.
pub(super) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the disk must still take of a file of `n_bytes`.
pub(super) fn bytes_to_come(destination: &Path, n_bytes: u64) -> u64 {
    n_bytes.saturating_sub(kept_bytes(destination).unwrap_or(0))
}

/// The name that a file will have whose temporary name this is.
pub(super) fn final_path(partial: &Path) -> Option<PathBuf> {
    partial.to_str()?.strip_suffix(PARTIAL_SUFFIX).map(PathBuf::from)
}

/// Bytes that an attempt has left for the next to go on from, if there are any.
pub(super) fn kept_bytes(destination: &Path) -> Option<u64> {
    fs::metadata(partial_path(destination)).ok().map(|partial| partial.len()).filter(|n_bytes| *n_bytes > 0)
}

/// The temporary name of a file.
pub(super) fn partial_path(destination: &Path) -> PathBuf {
    let mut name = destination.as_os_str().to_owned();
    name.push(PARTIAL_SUFFIX);
    name.into()
}
