//! Compiled kernels of GPUs, in the user's cache folder: a file for each GPU and driver.
//!
//! They spare time and nothing else: what is missing, damaged or can't be written is compiled again, and only logs tell.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use metallic_gpu::KernelStore;

use crate::fetch::store::cache_folder;

/// Bytes of a file at most: some hundred kernels, each as large as any driver makes them. What has become larger is begun
/// anew.
const MAX_BYTES: u64 = 64 << 20;

/// Before the name of a file that is not whole yet.
const PARTIAL_PREFIX: &str = ".partial-";

/// The folder that they are in.
pub(crate) struct KernelFolder(PathBuf);

impl KernelFolder {
    /// This user's, unless the system does not say where that is.
    pub(crate) fn of_user() -> Option<Self> {
        match cache_folder() {
            Ok(folder) => Some(Self(folder.join("kernels"))),
            Err(failure) => {
                tracing::debug!("compiled kernels are not kept: {failure}");
                None
            }
        }
    }
}

impl KernelStore for KernelFolder {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.0.join(name);
        match read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::debug!("no compiled kernels are taken from {}: {error}", path.display());
                None
            }
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = write(&self.0, name, bytes) {
            tracing::debug!("compiled kernels are not kept in {}: {error}", self.0.display());
        }
    }
}

/// A file that only its owner can write to.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened: that could wait for ever for what is no file.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(io::Error::other(format!("it is no file of up to {MAX_BYTES} bytes")));
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o022 != 0 {
        return Err(io::Error::other("others than its owner may write to it"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file whole or not at all, for its owner alone. It is not waited for until it is on the disk: what a machine
/// that stops leaves of it is not taken.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = folder.join(name);
    if bytes.len() as u64 > MAX_BYTES {
        fs::remove_file(&path)?;
        return Err(io::Error::other(format!("{} bytes are more than {MAX_BYTES}", bytes.len())));
    }
    fs::create_dir_all(folder)?;
    // Readable and writable for the owner alone.
    let mut partial = tempfile::Builder::new().prefix(PARTIAL_PREFIX).tempfile_in(folder)?;
    partial.write_all(bytes)?;
    partial.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_a_large_file_makes_room_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = KernelFolder(folder.path().join("kernels"));
        assert_eq!(store.load("a"), None);
        for bytes in [&b"kernels"[..], b"others"] {
            store.save("a", bytes);
            assert_eq!(store.load("a").as_deref(), Some(bytes));
        }
        store.save("b", &vec![0; MAX_BYTES as usize]);
        assert_eq!(store.load("b").map(|bytes| bytes.len() as u64), Some(MAX_BYTES));
        store.save("b", &vec![0; MAX_BYTES as usize + 1]);
        assert_eq!(store.load("b"), None);
        assert_eq!(fs::read_dir(&store.0).unwrap().count(), 1, "only a is left");
    }

    #[test]
    fn what_can_not_be_read_or_written_is_as_if_it_was_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let not_a_folder = folder.path().join("file");
        fs::write(&not_a_folder, b"").unwrap();
        let store = KernelFolder(not_a_folder);
        store.save("a", b"kernels");
        assert_eq!(store.load("a"), None);
        let store = KernelFolder(folder.path().to_owned());
        fs::create_dir(folder.path().join("b")).unwrap();
        store.save("b", b"kernels");
        assert_eq!(store.load("b"), None);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_writes() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let store = KernelFolder(folder.path().to_owned());
        store.save("a", b"kernels");
        let path = folder.path().join("a");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(store.load("a"), None);
    }
}
