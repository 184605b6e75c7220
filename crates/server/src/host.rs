//! A model on a thread of its own. Requests go to it through a channel, and what it says of each comes back through another:
//! so no asynchronous code waits for arithmetic, and the engine knows nothing of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metallic::engine::{Form, Grammar, Grammars, RequestId, Stats};
use metallic::text::{AnswerFormat, ChatTemplate, Tokenizer};
use metallic::{Engine, Event, Request};
use tokio::sync::{mpsc as asynchronous, oneshot};

use crate::error::{Error, Result};
use crate::library::Outline;
use crate::metrics::Histogram;

/// Events of a request beside two for each token: its end, and text that was held back.
const MORE_EVENTS: usize = 8;

/// A model that is to be served.
pub struct Hosted {
    name: String,
    engine: Engine,
    template: Option<ChatTemplate>,
    n_bytes: u64,
    outline: Outline,
    kept: Box<dyn Send>,
}

impl Hosted {
    /// A model that is loaded, under the name that requests give. Without a template it continues texts only.
    pub fn new(name: impl Into<String>, engine: Engine, template: Option<ChatTemplate>) -> Self {
        let outline = Outline { n_ctx: engine.model().n_ctx(), ..Outline::default() };
        Self { name: name.into(), engine, template, n_bytes: 0, outline, kept: Box::new(()) }
    }

    /// The same with the bytes of its files, which clients are told.
    #[must_use]
    pub fn file_bytes(self, n_bytes: u64) -> Self {
        Self { n_bytes, ..self }
    }

    /// The same with what it holds, which counts against the server's budget.
    #[must_use]
    pub fn outline(self, outline: Outline) -> Self {
        Self { outline, ..self }
    }

    /// The same with something that is dropped when the model is unloaded, such as a lock of its files.
    #[must_use]
    pub fn keeping(self, kept: impl Send + 'static) -> Self {
        Self { kept: Box::new(kept), ..self }
    }
}

/// A model that is served.
pub(crate) struct Host {
    name: String,
    architecture: String,
    n_bytes: u64,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    format: AnswerFormat,
    n_ctx: usize,
    n_sequences: usize,
    jobs: mpsc::Sender<Job>,
    thread: Option<thread::JoinHandle<()>>,
    n_asked: Arc<AtomicUsize>,
    counts: Arc<Mutex<Counts>>,
    grammars: OnceLock<Grammars>,
    /// Grammars are compiled one at a time: a hostile one may take long, and a gigabyte.
    compiling: Mutex<()>,
}

/// What a model was asked so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Requests that the engine took.
    pub(crate) n_begun: u64,
    /// Requests that have ended, and of them those that failed.
    pub(crate) n_ended: u64,
    pub(crate) n_failed: u64,
    /// Those that wait or are being answered.
    pub(crate) n_open: usize,
    /// Tokens of prompts that were read, those that were cached, and tokens of answers.
    pub(crate) n_read: u64,
    pub(crate) n_cached: u64,
    pub(crate) n_generated: u64,
    /// Time in passes that read prompts, and that made answers.
    pub(crate) prefill: Duration,
    pub(crate) decode: Duration,
    /// Bytes of weights that were swapped in, and how long computing waited for them.
    pub(crate) disk_bytes: u64,
    pub(crate) disk_wait: Duration,
    /// From requests to first tokens, and between the tokens of answers.
    pub(crate) first_token: Histogram,
    pub(crate) between_tokens: Histogram,
    /// What was done lately.
    pub(crate) lately: Lately,
}

/// What a model did in the last whole second of work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lately {
    /// Tokens of answers in a second; 0 where there were none.
    pub(crate) generation: f64,
    /// The share of the time that computing waited for weights.
    pub(crate) wait_share: Option<f64>,
}

impl Counts {
    fn ended(&mut self, stats: Option<&Stats>) {
        self.n_ended += 1;
        let Some(stats) = stats else {
            self.n_failed += 1;
            return;
        };
        self.n_read += stats.n_read as u64;
        self.n_cached += stats.n_cached as u64;
        self.n_generated += stats.n_generated as u64;
        self.prefill += stats.prefill;
        self.decode += stats.decode;
    }
}

/// A request on its way to the engine.
struct Job {
    request: Request,
    asked: Instant,
    /// Whether the engine takes it.
    taken: oneshot::Sender<Result<(), Arc<metallic::Error>>>,
    events: asynchronous::Sender<Event>,
}

/// What comes of a request, in order. A request of which nobody wants to hear more is cancelled.
pub(crate) struct Answers {
    events: asynchronous::Receiver<Event>,
    _place: Place,
}

/// One of the requests that a model has.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Answers {
    /// What is next; an error where the thread has gone without an end.
    pub(crate) async fn next(&mut self) -> Result<Event> {
        self.events.recv().await.ok_or(Error::Stopped)
    }
}

impl Host {
    /// Starts its thread, which ends when nobody can ask any more.
    pub(crate) fn start(model: Hosted) -> (Self, Outline) {
        let Hosted { name, engine, template, n_bytes, outline, kept } = model;
        let (jobs, receiver) = mpsc::channel();
        let format = template.as_ref().map(ChatTemplate::answer_format).unwrap_or_default();
        let (tokenizer, model) = (engine.shared_tokenizer(), engine.model());
        let architecture = model.config().architecture.to_string();
        let (n_ctx, n_sequences) = (model.n_ctx(), model.capacity().n_sequences);
        let thread = thread::Builder::new().name(format!("model {name}"));
        let counts = Arc::new(Mutex::new(Counts::default()));
        let counted = Arc::clone(&counts);
        let thread = thread.spawn(move || {
            run(engine, &receiver, &counted);
            drop(kept);
        });
        // Whoever asks will hear that it has stopped.
        let thread = thread.inspect_err(|error| tracing::error!("can't start the thread of {name}: {error}"));
        let host = Self {
            name,
            architecture,
            n_bytes,
            tokenizer,
            template,
            format,
            n_ctx,
            n_sequences,
            jobs,
            thread: thread.ok(),
            n_asked: Arc::default(),
            counts,
            grammars: OnceLock::new(),
            compiling: Mutex::new(()),
        };
        (host, outline)
    }

    /// Ends its thread, and waits until what the model held is free.
    pub(crate) fn stop(self) {
        let Self { jobs, thread, name, .. } = self;
        drop(jobs);
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of {name} has failed");
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Bytes of its files; 0 where that is not known.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub(crate) fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    pub(crate) fn format(&self) -> &AnswerFormat {
        &self.format
    }

    /// The form that a grammar gives answers. May take long.
    pub(crate) fn compile(&self, grammar: &Grammar) -> metallic::Result<Form> {
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let grammars = match self.grammars.get() {
            Some(grammars) => grammars,
            None => {
                let grammars = Grammars::new(&self.tokenizer)?;
                self.grammars.get_or_init(|| grammars)
            }
        };
        grammars.compile(grammar)
    }

    /// What it was asked so far.
    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    pub(crate) fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Requests that are answered at the same time.
    pub(crate) fn n_sequences(&self) -> usize {
        self.n_sequences
    }

    /// Has a request answered, if the engine takes it, where no more wait than may. An answer that has not been read counts.
    pub(crate) async fn ask(&self, request: Request, max_waiting: usize) -> Result<Answers> {
        let place = Place(Arc::clone(&self.n_asked));
        if self.n_asked.fetch_add(1, Ordering::Relaxed) >= self.n_sequences + max_waiting {
            return Err(Error::QueueFull { n_waiting: max_waiting });
        }
        // As many as an answer can have, so that the engine never waits for a slow reader. They take memory as they come.
        let (events, answers) = asynchronous::channel(2 * self.n_ctx + MORE_EVENTS);
        let (taken, is_taken) = oneshot::channel();
        self.jobs.send(Job { request, asked: Instant::now(), taken, events }).map_err(|_| Error::Stopped)?;
        match is_taken.await {
            Ok(Ok(())) => Ok(Answers { events: answers, _place: place }),
            Ok(Err(error)) => Err(Error::Engine(error)),
            Err(_) => Err(Error::Stopped),
        }
    }
}

/// Who wants to hear of each request.
type Listeners = HashMap<RequestId, Listener>;

struct Listener {
    events: asynchronous::Sender<Event>,
    /// When the last token came; before the first, the request.
    last: Instant,
    has_token: bool,
}

impl Listener {
    fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Counts the time to a token.
    fn token(&mut self, counts: &mut Counts) {
        let now = Instant::now();
        let times = if self.has_token { &mut counts.between_tokens } else { &mut counts.first_token };
        times.add(now - self.last);
        (self.last, self.has_token) = (now, true);
    }
}

/// Answers requests until there can be no more.
fn run(mut engine: Engine, jobs: &mpsc::Receiver<Job>, counts: &Mutex<Counts>) {
    let mut listeners = Listeners::new();
    let mut window = Window::new(&engine);
    loop {
        lock(counts).n_open = listeners.len();
        if listeners.is_empty() {
            lock(counts).lately = Lately::default();
            let Ok(job) = jobs.recv() else { return };
            window = Window::new(&engine);
            submit(&mut engine, job, &mut listeners, counts);
        }
        while let Ok(job) = jobs.try_recv() {
            submit(&mut engine, job, &mut listeners, counts);
        }
        let gone: Vec<RequestId> =
            listeners.iter().filter(|(_, listener)| listener.is_gone()).map(|(id, _)| *id).collect();
        let mut events = Vec::new();
        for id in gone {
            // Where the model can't go on that ends others, too.
            engine.cancel(id, &mut |event| events.push(event));
        }
        // A pass that nobody waits for is given up.
        let is_unwanted =
            |ids: &[RequestId]| ids.iter().all(|id| listeners.get(id).is_none_or(Listener::is_gone));
        let goes_on = engine.step_unless(&is_unwanted, &mut |event| events.push(event));
        window.n_tokens += events.iter().filter(|event| matches!(event, Event::Token { .. })).count();
        if let Some(lately) = window.ends(&engine) {
            lock(counts).lately = lately;
        }
        if let Some(stats) = engine.model().stream_stats() {
            let mut counts = lock(counts);
            (counts.disk_bytes, counts.disk_wait) = (stats.read_bytes, stats.waited);
        }
        for event in events {
            count(&event, counts, &mut listeners);
            tell(event, &mut listeners);
        }
        if !goes_on && !listeners.is_empty() {
            tracing::error!("{} requests have no end: a bug in metallic-server", listeners.len());
            listeners.clear();
        }
    }
}

/// Counts a token, or the end of a request.
fn count(event: &Event, counts: &Mutex<Counts>, listeners: &mut Listeners) {
    match event {
        Event::Finished { stats, .. } => lock(counts).ended(Some(stats)),
        Event::Failed { .. } => lock(counts).ended(None),
        Event::Token { request, .. } => {
            if let Some(listener) = listeners.get_mut(request) {
                listener.token(&mut lock(counts));
            }
        }
        Event::Text { .. } => {}
    }
}

/// Counts that a panic left are as good as others.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A second of work, or one pass if that takes longer.
struct Window {
    began: Instant,
    n_tokens: usize,
    waited: Option<Duration>,
}

impl Window {
    fn new(engine: &Engine) -> Self {
        let waited = engine.model().stream_stats().map(|stats| stats.waited);
        Self { began: Instant::now(), n_tokens: 0, waited }
    }

    /// What was done in it, if it is over; then the next begins.
    fn ends(&mut self, engine: &Engine) -> Option<Lately> {
        let seconds = self.began.elapsed().as_secs_f64();
        if seconds < 1.0 {
            return None;
        }
        let last = std::mem::replace(self, Self::new(engine));
        let waited = self.waited.zip(last.waited).map(|(now, then)| now.saturating_sub(then));
        Some(Lately {
            generation: last.n_tokens as f64 / seconds,
            wait_share: waited.map(|waited| (waited.as_secs_f64() / seconds).min(1.0)),
        })
    }
}

fn submit(engine: &mut Engine, job: Job, listeners: &mut Listeners, counts: &Mutex<Counts>) {
    let Job { request, asked, taken, events } = job;
    if taken.is_closed() {
        return;
    }
    let listener = Listener { events, last: asked, has_token: false };
    let submitted = engine.submit(request).map(|id| drop(listeners.insert(id, listener)));
    // Before anyone hears of it: a model that answers is not unloaded.
    lock(counts).n_open = listeners.len();
    lock(counts).n_begun += u64::from(submitted.is_ok());
    // One who has gone meanwhile is found out by the listener.
    let _ = taken.send(submitted.map_err(Arc::new));
}

fn tell(event: Event, listeners: &mut Listeners) {
    let (id, is_last) = match &event {
        Event::Token { request, .. } | Event::Text { request, .. } => (*request, false),
        Event::Finished { request, .. } | Event::Failed { request, .. } => (*request, true),
    };
    let Some(listener) = listeners.get(&id) else { return };
    if let Err(asynchronous::error::TrySendError::Full(_)) = listener.events.try_send(event) {
        tracing::error!("an answer has more events than tokens: a bug in metallic-server");
    }
    if is_last {
        listeners.remove(&id);
    }
}
