//! The models that are served: each on a thread of its own, all within one budget of memory.
//!
//! A model is loaded when it is first asked for. Where it has no room, those that nobody is being answered by make some, the
//! one used longest ago first; where only busy ones are left, it waits for them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ask::in_background;
use crate::asked::Asked;
use crate::error::{Error, Result};
use crate::host::{Host, Hosted};
use crate::library::{Description, Device, Library, Listed, Outline, Progress, Refused, Wish};

/// How often one who waits for room looks whether there is some.
const POLL: Duration = Duration::from_millis(50);

/// How long a model that is to be loaded waits while others get more requests that keep them busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// The models of a server. Clones share them.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    source: Option<Arc<dyn Library>>,
    terms: Terms,
    entries: Mutex<Vec<Entry>>,
    /// Held by who loads: one at a time.
    loading: tokio::sync::Mutex<()>,
    /// Time spent loading.
    loading_time: Stopwatch,
    /// Whether who holds `loading` has long waited for others to be idle: then whoever comes waits for that load, too.
    is_starving: AtomicBool,
    n_asked: AtomicU64,
    started: jiff::Timestamp,
}

/// What a server may do with its models.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Bytes of main memory that all of them may hold together; `None` for no limit.
    pub ram_bytes: Option<u64>,
    /// Bytes beside them that clients may make the server take; see [`Limits::bytes`](crate::Limits::bytes).
    pub own_bytes: u64,
    /// Whether a model is loaded with less than it would take, where others are busy with the rest.
    pub shrinks: bool,
    /// Whether all requests may load, unload, bring and remove models, and not those alone that bring a key for it.
    pub manages: bool,
}

/// A model that is known.
struct Entry {
    name: String,
    n_bytes: u64,
    state: State,
    /// How many requests had come when it was last asked for.
    last_used: u64,
}

enum State {
    Unloaded,
    Loading(Arc<Progress>),
    Loaded { host: Arc<Host>, outline: Arc<Outline>, wish: Wish },
    Failed(String),
}

/// A model as others are told of it.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) n_bytes: u64,
    pub(crate) loaded: Option<(Arc<Host>, Arc<Outline>)>,
    /// Bytes loaded, of how many, while it is.
    pub(crate) progress: Option<(u64, u64)>,
    pub(crate) failure: Option<String>,
}

impl Service {
    /// A service of models that are loaded already, of which the first answers requests that name none.
    pub fn new(models: impl IntoIterator<Item = Hosted>) -> Self {
        let service = Self::with(None, Terms::default());
        models.into_iter().for_each(|model| service.add(model));
        service
    }

    /// A service of a library's models, of which the first answers requests that name none.
    ///
    /// # Errors
    /// As [`Library::list`].
    pub fn of_library(library: impl Library, terms: Terms) -> Result<Self, Refused> {
        let listed = library.list()?;
        let service = Self::with(Some(Arc::new(library)), terms);
        service.update(listed);
        Ok(service)
    }

    fn with(source: Option<Arc<dyn Library>>, terms: Terms) -> Self {
        Self(Arc::new(Inner {
            source,
            terms,
            entries: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            loading_time: Stopwatch::default(),
            is_starving: AtomicBool::new(false),
            n_asked: AtomicU64::new(0),
            started: jiff::Timestamp::now(),
        }))
    }

    /// Serves a model that is loaded, as a program does before anyone asks.
    pub fn add(&self, model: Hosted) {
        let (host, outline) = Host::start(model);
        let (name, n_bytes) = (host.name().to_owned(), host.n_bytes());
        let state = State::Loaded { host: Arc::new(host), outline: Arc::new(outline), wish: Wish::default() };
        let mut entries = self.entries();
        match entries.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => entry.state = state,
            None => entries.push(Entry { name, n_bytes, state, last_used: 0 }),
        }
    }

    /// Whether there is any model.
    pub fn has_models(&self) -> bool {
        !self.entries().is_empty()
    }

    pub(crate) fn terms(&self) -> Terms {
        self.0.terms
    }

    /// Whether the request that is being answered may load, unload, bring and remove models.
    pub(crate) fn is_managed(&self) -> bool {
        self.0.source.is_some() && (self.0.terms.manages || Asked::current().may_manage())
    }

    /// # Errors
    /// It may not.
    pub(crate) fn allow_managing(&self) -> Result<()> {
        if self.is_managed() { Ok(()) } else { Err(Error::NotManaged) }
    }

    /// When it was started.
    pub(crate) fn started(&self) -> jiff::Timestamp {
        self.0.started
    }

    /// All models.
    pub(crate) fn known(&self) -> Vec<Known> {
        let known = |entry: &Entry| {
            let Entry { name, n_bytes, state, .. } = entry;
            let (name, n_bytes) = (name.clone(), *n_bytes);
            let mut known = Known { name, n_bytes, loaded: None, progress: None, failure: None };
            match state {
                State::Unloaded => {}
                State::Loading(progress) => known.progress = Some(progress.get()),
                State::Loaded { host, outline, .. } => known.loaded = Some((host.clone(), outline.clone())),
                State::Failed(reason) => known.failure = Some(reason.clone()),
            }
            known
        };
        self.entries().iter().map(known).collect()
    }

    /// Those that are loaded.
    pub(crate) fn hosts(&self) -> Vec<Arc<Host>> {
        self.known().into_iter().filter_map(|known| Some(known.loaded?.0)).collect()
    }

    /// The model of this name, or the first if none is named; loaded if it is not.
    pub(crate) async fn host(&self, name: Option<&str>) -> Result<Arc<Host>> {
        let name = self.full_name(name)?;
        let is_starving = self.0.is_starving.load(Ordering::Relaxed);
        if let Some(host) = self.loaded(&name).filter(|_| !is_starving) {
            return Ok(host);
        }
        let (asked, wish) = (Asked::current(), Wish::default());
        let load = self.load(&name, &wish);
        tokio::pin!(load);
        let mut counted = self.0.loading_time.read();
        loop {
            let loaded = asked.in_time(&mut load).await;
            let time = self.0.loading_time.read();
            asked.has_loaded(time - counted);
            if loaded.is_ok() || time == counted {
                return loaded?;
            }
            counted = time;
            tokio::time::sleep(POLL).await;
        }
    }

    /// The name of a model as the library has it.
    pub(crate) fn full_name(&self, name: Option<&str>) -> Result<String> {
        let entries = self.entries();
        let entry = match name {
            None | Some("") => entries.first().ok_or(Error::NoModels)?,
            // Ollama's clients add a tag to names without one.
            Some(name) => {
                let is_called = |known: &str| name == known || name.strip_suffix(":latest") == Some(known);
                entries.iter().find(|entry| is_called(&entry.name)).ok_or_else(|| Error::UnknownModel {
                    name: name.chars().take(100).collect(),
                    known: entries.iter().map(|entry| entry.name.clone()).collect(),
                })?
            }
        };
        Ok(entry.name.clone())
    }

    /// The model if it is loaded, which is thereby used.
    fn loaded(&self, name: &str) -> Option<Arc<Host>> {
        let n_asked = self.0.n_asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| entry.name == name)?;
        entry.last_used = n_asked;
        match &entry.state {
            State::Loaded { host, .. } => Some(Arc::clone(host)),
            _ => None,
        }
    }

    /// Loads a model once there is room for it. Where it is loaded already, that is left as it is.
    pub(crate) async fn load(&self, name: &str, wish: &Wish) -> Result<Arc<Host>> {
        let (service, name, wish) = (self.clone(), name.to_owned(), *wish);
        // It goes on when whoever asked has gone: memory is not another's before it is free.
        let loading = tokio::spawn(async move {
            let library = service.source()?;
            let _turn = service.0.loading.lock().await;
            if let Some(host) = service.loaded(&name) {
                return Ok(host);
            }
            let progress = Arc::<Progress>::default();
            service.set(&name, State::Loading(Arc::clone(&progress)));
            let loaded = service.load_in_turn(library, &name, &wish, progress).await;
            service.0.is_starving.store(false, Ordering::Relaxed);
            match loaded {
                Ok((host, outline, wish)) => {
                    let (host, outline) = (Arc::new(host), Arc::new(outline));
                    service.set(&name, State::Loaded { host: Arc::clone(&host), outline, wish });
                    Ok(host)
                }
                Err(error) => {
                    tracing::warn!("can't load {name}: {error}");
                    service.set(&name, State::Failed(error.to_string()));
                    Err(error)
                }
            }
        });
        loading.await.unwrap_or(Err(Error::Stopped))
    }

    async fn load_in_turn(
        &self,
        library: Arc<dyn Library>,
        name: &str,
        wish: &Wish,
        progress: Arc<Progress>,
    ) -> Result<(Host, Outline, Wish)> {
        let whole = self.within_budget(wish);
        let outline = self.outline(name, &whole, false).await?;
        let began = Instant::now();
        let wish = loop {
            let left = self.left_beside(&outline.devices);
            if left.is_none_or(|left| outline.ram_bytes <= left) {
                break whole;
            }
            if self.unload_idle().await {
                continue;
            }
            if let Some(left) = left.filter(|left| self.0.terms.shrinks && *left > 0) {
                let smaller = Wish { ram_bytes: Some(left), ..whole };
                if self.outline(name, &smaller, false).await.is_ok() {
                    break smaller;
                }
            }
            self.0.is_starving.store(began.elapsed() > PATIENCE, Ordering::Relaxed);
            tokio::time::sleep(POLL).await;
        };
        let owned = name.to_owned();
        self.0.loading_time.start();
        let loaded =
            in_background(move || library.load(&owned, &wish, &progress).map_err(Error::Library)).await;
        self.0.loading_time.stop();
        let hosted = loaded?;
        let (host, outline) = Host::start(hosted);
        Ok((host, outline, wish))
    }

    fn within_budget(&self, wish: &Wish) -> Wish {
        Wish { ram_bytes: wish.ram_bytes.into_iter().chain(self.0.terms.ram_bytes).min(), ..*wish }
    }

    /// What a model is; see [`Library::describe`]. Of one that no library has, as far as is known where it is loaded.
    pub(crate) async fn describe(&self, name: &str) -> Result<Description> {
        if let Ok(library) = self.source() {
            let name = name.to_owned();
            return in_background(move || library.describe(&name).map_err(Error::Library)).await;
        }
        let host = self.host(Some(name)).await?;
        Ok(Description {
            architecture: host.architecture().to_owned(),
            context_length: host.n_ctx(),
            has_calls: host.format().has_calls(),
            has_reasoning: host.format().has_reasoning(),
            ..Description::default()
        })
    }

    /// What a model would hold; see [`Library::outline`].
    pub(crate) async fn outline(&self, name: &str, wish: &Wish, is_measured: bool) -> Result<Outline> {
        let (library, name, wish) = (self.source()?, name.to_owned(), self.within_budget(wish));
        in_background(move || library.outline(&name, &wish, is_measured).map_err(Error::Library)).await
    }

    /// Notes how fast a loaded model is predicted to be, once that is known.
    pub(crate) async fn predict_loaded(&self, name: &str) {
        let wish_of = |entry: &Entry| match &entry.state {
            State::Loaded { outline, wish, .. } if outline.predicted.is_none() => Some(*wish),
            _ => None,
        };
        let wish = self.entries().iter().find(|entry| entry.name == name).and_then(wish_of);
        let Some(wish) = wish else { return };
        let Ok(Outline { predicted, .. }) = self.outline(name, &wish, true).await else { return };
        for entry in self.entries().iter_mut().filter(|entry| entry.name == name) {
            if let State::Loaded { outline, .. } = &mut entry.state {
                *outline = Arc::new(Outline { predicted: predicted.clone(), ..Outline::clone(outline) });
            }
        }
    }

    /// Bytes of main memory that loaded models leave; `None` if there is no limit. None are left where they leave too little of
    /// a device.
    fn left_beside(&self, devices: &[Device]) -> Option<u64> {
        let entries = self.entries();
        let outlines = || {
            entries.iter().filter_map(|entry| match &entry.state {
                State::Loaded { outline, .. } => Some(outline),
                _ => None,
            })
        };
        let taken = |device: &Device| -> u64 {
            let of_models = outlines().flat_map(|outline| &outline.devices);
            of_models.filter(|other| other.name == device.name).map(|other| other.bytes).sum()
        };
        if devices.iter().any(|device| taken(device) + device.bytes > device.budget_bytes) {
            return Some(0);
        }
        let used: u64 = outlines().map(|outline| outline.ram_bytes).sum();
        self.0.terms.ram_bytes.map(|bytes| bytes.saturating_sub(used))
    }

    /// Unloads the model that was used longest ago of those that are not busy. False if all are.
    async fn unload_idle(&self) -> bool {
        let host = {
            let mut entries = self.entries();
            let idle = entries.iter_mut().filter(|entry| entry.is_idle());
            let oldest = idle.min_by_key(|entry| entry.last_used);
            oldest.and_then(|entry| entry.take(State::Unloaded))
        };
        match host {
            Some(host) => {
                stop(host).await;
                true
            }
            None => false,
        }
    }

    /// Unloads a model.
    ///
    /// # Errors
    /// [`Error::Busy`], while it answers.
    pub(crate) async fn unload(&self, name: &str) -> Result<()> {
        // Those who only look at it are soon gone.
        for _ in 0..20 {
            let host = {
                let mut entries = self.entries();
                let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) else { return Ok(()) };
                match &entry.state {
                    State::Loading(_) => break,
                    State::Loaded { host, .. } if host.counts().n_open > 0 => break,
                    State::Loaded { .. } if !entry.is_idle() => None,
                    State::Loaded { .. } => entry.take(State::Unloaded),
                    State::Unloaded | State::Failed(_) => return Ok(()),
                }
            };
            if let Some(host) = host {
                stop(host).await;
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Error::Busy { name: name.to_owned() })
    }

    /// Unloads a model when it has been idle for so long, unless it is asked for again before.
    pub(crate) fn unload_after(&self, name: &str, idle: Duration) {
        let Some((last_used, _)) = self.use_of(name) else { return };
        let (service, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let is_idle =
                || service.use_of(&name).and_then(|(used, idle)| (used == last_used).then_some(idle));
            // Until it has answered, then for as long as was asked, and then only if nobody came.
            while is_idle() == Some(false) {
                tokio::time::sleep(POLL).await;
            }
            tokio::time::sleep(idle).await;
            if is_idle() == Some(true) {
                // Whoever comes meanwhile keeps it.
                let _ = service.unload(&name).await;
            }
        });
    }

    /// How many requests had come when a model was last asked for, and whether it is idle.
    fn use_of(&self, name: &str) -> Option<(u64, bool)> {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry.name == name)?;
        Some((entry.last_used, entry.is_idle()))
    }

    /// Removes a model's files.
    ///
    /// # Errors
    /// [`Error::Busy`], while it is loaded; what the library says.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let library = self.source()?;
        self.unload(name).await?;
        let _turn = self.0.loading.lock().await;
        let owned = name.to_owned();
        in_background(move || library.remove(&owned).map_err(Error::Library)).await?;
        self.refresh().await
    }

    /// Brings a model here.
    pub(crate) async fn pull(&self, name: &str, progress: Arc<Progress>) -> Result<()> {
        let (library, name) = (self.source()?, name.to_owned());
        in_background(move || library.pull(&name, &progress).map_err(Error::Library)).await?;
        self.refresh().await
    }

    /// Looks which models are here now.
    async fn refresh(&self) -> Result<()> {
        let library = self.source()?;
        let listed = in_background(move || library.list().map_err(Error::Library)).await?;
        self.update(listed);
        Ok(())
    }

    fn update(&self, listed: Vec<Listed>) {
        let mut entries = self.entries();
        entries.retain(|entry| {
            matches!(entry.state, State::Loaded { .. } | State::Loading(_))
                || listed.iter().any(|listed| listed.name == entry.name)
        });
        for Listed { name, n_bytes } in listed {
            match entries.iter_mut().find(|entry| entry.name == name) {
                Some(entry) => entry.n_bytes = n_bytes,
                None => entries.push(Entry { name, n_bytes, state: State::Unloaded, last_used: 0 }),
            }
        }
    }

    fn source(&self) -> Result<Arc<dyn Library>> {
        self.0.source.clone().ok_or(Error::NoLibrary)
    }

    fn set(&self, name: &str, state: State) {
        if let Some(entry) = self.entries().iter_mut().find(|entry| entry.name == name) {
            entry.state = state;
        }
    }

    /// What a panic left is as good as before.
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether it is loaded, and nobody uses it or is being answered.
    fn is_idle(&self) -> bool {
        match &self.state {
            State::Loaded { host, .. } => Arc::strong_count(host) == 1 && host.counts().n_open == 0,
            _ => false,
        }
    }

    /// Goes over to a state, and gives back the model if it was loaded.
    fn take(&mut self, state: State) -> Option<Arc<Host>> {
        match std::mem::replace(&mut self.state, state) {
            State::Loaded { host, .. } => Some(host),
            _ => None,
        }
    }
}

/// How long some work was done in all.
#[derive(Debug, Default)]
struct Stopwatch(Mutex<(Duration, Option<Instant>)>);

impl Stopwatch {
    fn start(&self) {
        self.times().1 = Some(Instant::now());
    }

    fn stop(&self) {
        let (time, began) = &mut *self.times();
        *time += began.take().map_or(Duration::ZERO, |began| began.elapsed());
    }

    fn read(&self) -> Duration {
        let times = self.times();
        times.0 + times.1.map_or(Duration::ZERO, |began| began.elapsed())
    }

    fn times(&self) -> MutexGuard<'_, (Duration, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a model that nobody else has, and waits until its memory is free.
async fn stop(host: Arc<Host>) {
    if let Ok(host) = Arc::try_unwrap(host) {
        // It fails as others do, in the log.
        let stop = move || {
            host.stop();
            Ok(())
        };
        let _ = in_background(stop).await;
    }
}
