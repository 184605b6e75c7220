//! Files that a command writes at once: whole under their name, or not there at all.
//!
//! A file is written under a temporary name beside its place, and gets its name when all of it is on the disk. A failure
//! removes it, and so does a signal. What a killed process leaves is known by its name, and to be nobody's by its lock,
//! which ends with the process: whoever next writes to the folder removes it.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::{Failure, Kind, Result};
use crate::interrupt::{Interrupt, Unfinished};

/// How temporary names begin and end.
const PREFIX: &str = ".metallic-";
const SUFFIX: &str = ".partial";

/// Where `-o` points: to a file, or to what can only be written to as it is, such as a pipe or a device.
pub(crate) enum Output<'a> {
    File(OutputFile<'a>),
    Stream(PathBuf, Box<dyn Write>),
}

impl<'a> Output<'a> {
    /// Opens what `path` names, `-` being standard output. `inputs` and `force` are as in [`Target::check`].
    pub(crate) fn create(
        path: &Path,
        inputs: &[&Path],
        force: bool,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let path = if path == "-" { Path::new("/dev/stdout") } else { path };
        let there = fs::metadata(path).ok();
        if path == "/dev/stdout" {
            // Not opened anew, which would empty a file that the shell is to append to.
            refuse_inputs(path, there.as_ref(), inputs)?;
            return Ok(Output::Stream(path.to_owned(), Box::new(io::stdout())));
        }
        if there.is_some_and(|there| !there.is_file() && !there.is_dir()) {
            let stream = File::options().write(true).open(path).map_err(|e| cannot_write(path, e))?;
            return Ok(Output::Stream(path.to_owned(), Box::new(stream)));
        }
        Target::check(path, inputs, force)?.create(interrupt).map(Output::File)
    }

    /// Whether what is written is out of our hands at once.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Output::Stream(..))
    }

    /// Says that all was written.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Output::File(file) => OutputFile::finish_all(vec![file]),
            Output::Stream(path, mut stream) => stream.flush().map_err(|e| cannot_write(&path, e)),
        }
    }

    /// A failure to write to it.
    pub(crate) fn failure(&self, error: io::Error) -> Failure {
        match self {
            Output::File(file) => file.failure(error),
            Output::Stream(path, _) => cannot_write(path, error),
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::File(file) => file.file().write(bytes),
            Output::Stream(_, stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::File(file) => file.file().flush(),
            Output::Stream(_, stream) => stream.flush(),
        }
    }
}

/// The name of a file that may be written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    /// The same without links, so that a link stays one.
    place: PathBuf,
    /// Of the file that is replaced.
    permissions: Option<Permissions>,
    force: bool,
    is_private: bool,
}

impl Target {
    /// Refuses what is one of the inputs, by whatever name, and, without `force`, what exists.
    pub(crate) fn check(path: &Path, inputs: &[&Path], force: bool) -> Result<Self> {
        let refused = |what| Err(Failure::new(Kind::Usage, format!("{} {what}", path.display())));
        let there = fs::metadata(path).ok();
        refuse_inputs(path, there.as_ref(), inputs)?;
        match &there {
            Some(there) if there.is_dir() => return refused("is a folder"),
            Some(there) if !there.is_file() => return refused("is no regular file"),
            None if path.file_name().is_none() => return refused("is not the name of a file"),
            _ => {}
        }
        // Also a link to nothing.
        if !force && fs::symlink_metadata(path).is_ok() {
            let refused = refused("exists already");
            return refused.map_err(|failure| failure.advice("give another name, or --force to replace it"));
        }
        let place = there.as_ref().and_then(|_| fs::canonicalize(path).ok());
        Ok(Self {
            path: path.to_owned(),
            place: place.unwrap_or_else(|| path.to_owned()),
            permissions: there.map(|there| there.permissions()),
            force,
            is_private: false,
        })
    }

    /// The same for a file that its owner alone may read, whatever was there before.
    pub(crate) fn private(self) -> Self {
        Self { is_private: true, permissions: None, ..self }
    }

    /// Begins to write the file.
    pub(crate) fn create(self, interrupt: &Interrupt) -> Result<OutputFile<'_>> {
        remove_leftovers(self.folder());
        let mut unfinished = None;
        let temporary =
            tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(self.folder(), |path| {
                unfinished = Some(interrupt.unfinished(path));
                create_locked(path, self.is_private)
            });
        match temporary {
            Ok(temporary) => Ok(OutputFile { target: self, temporary, _unfinished: unfinished }),
            Err(error) => Err(cannot_write(&self.path, error)),
        }
    }

    fn folder(&self) -> &Path {
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }
}

/// A file without its name yet, which is gone if it is dropped.
pub(crate) struct OutputFile<'a> {
    target: Target,
    temporary: NamedTempFile,
    _unfinished: Option<Unfinished<'a>>,
}

impl OutputFile<'_> {
    /// The file, to write to and to read again.
    pub(crate) fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Where it is until it has its name.
    pub(crate) fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// The name that it will have.
    pub(crate) fn path(&self) -> &Path {
        &self.target.path
    }

    /// A failure to write it.
    pub(crate) fn failure(&self, error: io::Error) -> Failure {
        cannot_write(self.path(), error)
    }

    /// Gives files their names, once the last byte of the last one is on the disk.
    pub(crate) fn finish_all(files: Vec<Self>) -> Result<()> {
        for file in &files {
            let permissions = file.target.permissions.clone();
            let set = permissions.map_or(Ok(()), |permissions| file.file().set_permissions(permissions));
            set.and_then(|()| file.file().sync_all()).map_err(|e| file.failure(e))?;
        }
        for OutputFile { target, temporary, _unfinished } in files {
            // Another may have taken the name meanwhile.
            let named = if target.force {
                temporary.persist(&target.place)
            } else {
                temporary.persist_noclobber(&target.place)
            };
            named.map_err(|e| cannot_write(&target.path, e.error))?;
            sync_folder(target.folder());
        }
        Ok(())
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::output(error);
    }
    Failure::io(format!("can't write {}", path.display()), error)
}

pub(crate) fn refuse_inputs(path: &Path, there: Option<&Metadata>, inputs: &[&Path]) -> Result<()> {
    let is_input = |there| inputs.iter().any(|input| is_same_file((path, there), input));
    if there.is_some_and(is_input) {
        let what = format!("{} is the model itself", path.display());
        return Err(Failure::new(Kind::Usage, what).advice("give another name"));
    }
    Ok(())
}

/// Whether two names are of one file, through links of either kind.
#[cfg(unix)]
fn is_same_file((_, a): (&Path, &Metadata), b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;

    fs::metadata(b).is_ok_and(|b| (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

#[cfg(not(unix))]
fn is_same_file((a, _): (&Path, &Metadata), b: &Path) -> bool {
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// Creates a file that is locked for as long as it is open, and perhaps its owner's alone.
fn create_locked(path: &Path, is_private: bool) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    if is_private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    // Elsewhere what a user's folders hold is theirs.
    #[cfg(not(unix))]
    let _ = is_private;
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) if fs::exists(path)? => Ok(file),
        // Somebody took it for a leftover before it was locked: the caller tries another name.
        Ok(()) | Err(TryLockError::WouldBlock) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "a file system without locks, on which nothing is taken for a leftover");
            Ok(file)
        }
    }
}

/// Removes what killed processes have left in a folder.
fn remove_leftovers(folder: &Path) {
    let is_ours = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(PREFIX.as_bytes()) && name.ends_with(SUFFIX.as_bytes())
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !is_ours(&entry.file_name()) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let locked = File::options().write(true).open(&path).map(|file| file.try_lock().map(|()| file));
        if matches!(locked, Ok(Ok(_))) && fs::remove_file(&path).is_ok() {
            tracing::info!(path = %path.display(), "removed what a killed process left");
        }
    }
}

/// Has a new name reach the disk, too.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        let folder = folder.display();
        tracing::warn!("names in {folder} may be lost if the machine stops now: {error}");
    }
    #[cfg(not(unix))]
    let _ = folder;
}
