//! Repositories of the hub: what one has, and which of its files a quantization is.

use super::hub_name::{HubFile, HubQuant};
use super::store::Store;
use super::{Fetcher, ModelName, hub, quant};
use crate::failure::{Failure, Kind, Result};

/// A file in a repository.
#[derive(Debug)]
pub(crate) struct RepoFile {
    /// Its path in the repository.
    pub(crate) path: String,
    /// Its size.
    pub(crate) n_bytes: u64,
    /// Its SHA-256, where the repository tells it.
    pub(crate) sha256: Option<String>,
}

/// What a repository has to download.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The name of its file; of a model in shards, the first.
    pub(crate) name: ModelName,
    /// The quantization, as far as names tell.
    pub(crate) quant: Option<String>,
    /// Whether it is a model by its name, and no companion of one.
    pub(crate) is_model: bool,
    /// The size of all its files.
    pub(crate) n_bytes: u64,
    /// The number of its files.
    pub(crate) n_files: usize,
    /// The SHA-256 of a single file.
    pub(crate) sha256: Option<String>,
}

impl Fetcher<'_> {
    /// The name of the file that is meant, where the name says only a quantization. What the store has is taken
    /// before the hub is asked.
    pub(super) fn resolve(&self, store: &Store, name: &ModelName) -> Result<ModelName> {
        let ModelName::HubQuant(choice) = name else { return Ok(name.clone()) };
        let HubQuant { repo, quant } = choice;
        let stored = store.files_of(repo)?;
        let stored: Vec<&str> = stored.iter().map(String::as_str).collect();
        let wanted = quant.as_deref().unwrap_or(quant::DEFAULT);
        if let Some(file) = quant::find(stored.iter().copied(), wanted) {
            let file = repo.file(file);
            tracing::info!("{name} is {file} in the store");
            return Ok(ModelName::Hub(file));
        }
        let file = match (self.choose(choice), quant::choose(&stored, quant.as_deref())) {
            (Err(failure), Some(file)) if failure.kind() == Kind::NoModel => {
                self.terminal.note(format_args!("{failure}"));
                repo.file(file)
            }
            (chosen, _) => repo.file(&chosen?),
        };
        self.terminal.note(format_args!("{name} is {file}"));
        Ok(ModelName::Hub(file))
    }

    /// The file that the hub has in a quantization.
    fn choose(&self, choice: &HubQuant) -> Result<String> {
        let files = hub::list(&choice.repo, self.terminal, &self.interrupt.heed())?;
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        if let Some(file) = quant::choose(&paths, choice.quant.as_deref()) {
            return Ok(file.to_owned());
        }
        let mut there: Vec<&str> =
            paths.into_iter().filter(|path| quant::is_model(path)).filter_map(quant::of).collect();
        there.dedup();
        let failure = Failure::new(Kind::NoModel, format!("there is no {choice}"));
        Err(match there.as_slice() {
            [] => failure.because("the repository has no GGUF file that is a model by its name"),
            _ => failure.advice(format!("there are {}", there.join(", "))),
        })
    }

    /// What the repository that a name leads to has to download; `None` for a name that leads to none.
    pub(crate) fn offers(&self, name: &ModelName) -> Result<Option<Vec<Offer>>> {
        let (ModelName::Hub(HubFile { repo, .. }) | ModelName::HubQuant(HubQuant { repo, .. })) = name else {
            return Ok(None);
        };
        let mut offers: Vec<Offer> = Vec::new();
        for RepoFile { path, n_bytes, sha256 } in hub::list(repo, self.terminal, &self.interrupt.heed())? {
            if !quant::is_gguf(&path) {
                continue;
            }
            let (name, n_files) = ModelName::Hub(repo.file(&path)).first_part();
            if let Some(offer) = offers.iter_mut().find(|offer| offer.name == name) {
                offer.n_bytes = offer.n_bytes.saturating_add(n_bytes);
            } else {
                let sha256 = sha256.filter(|_| n_files == 1);
                let (quant, is_model) = (quant::of(&path).map(str::to_owned), quant::is_model(&path));
                offers.push(Offer { name, quant, is_model, n_bytes, n_files, sha256 });
            }
        }
        Ok(Some(offers))
    }
}
