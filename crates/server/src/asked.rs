//! One request on its way through the server: since when, what it holds of the server's memory, and what the log will say
//! of it.
//!
//! A handler's task knows its request ([`Asked::current`]), so that no endpoint hands it down.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::connection::Fate;
use crate::ending::{Answer, UntilEnd};
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Characters of a path that the log has at most.
const MAX_PATH: usize = 100;

/// What requests of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    /// Bytes of large bodies that may come at the same time.
    pub(crate) coming: Arc<Semaphore>,
    /// KiB of memory that reading bodies may take.
    pub(crate) reading: Arc<Semaphore>,
    /// Forms of answers are compiled one at a time: a hostile one may take long, and a gigabyte.
    pub(crate) compiling: Semaphore,
}

impl Shared {
    pub(crate) fn new(limits: Limits) -> Self {
        let coming = Arc::new(Semaphore::new(limits.coming_bytes()));
        let reading = Arc::new(Semaphore::new(limits.reading_kib()));
        Self { limits, coming, reading, compiling: Semaphore::new(1) }
    }
}

/// A request that was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) shared: Arc<Shared>,
    began: Instant,
    method: Method,
    path: String,
    n_values: AtomicUsize,
    /// Whose prompts it may use what was computed of.
    group: AtomicU64,
    may_manage: AtomicBool,
    record: Mutex<Record>,
}

/// What has become of it so far.
#[derive(Debug, Default)]
struct Record {
    status: Option<StatusCode>,
    model: Option<String>,
    n_prompt: usize,
    n_generated: usize,
    first_token: Option<Duration>,
    /// How long it has waited for a model to be loaded.
    loading: Duration,
    end: Option<String>,
    /// Answers that are being made.
    n_open: usize,
    /// Memory that its body takes.
    place: Option<OwnedSemaphorePermit>,
}

tokio::task_local! {
    static CURRENT: Arc<Asked>;
}

impl Asked {
    fn new(shared: &Arc<Shared>, request: &Request) -> Self {
        Self {
            shared: Arc::clone(shared),
            began: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(MAX_PATH).collect(),
            n_values: AtomicUsize::new(0),
            group: AtomicU64::new(0),
            may_manage: AtomicBool::new(false),
            record: Mutex::default(),
        }
    }

    /// The request that this task answers, or where there is none one that has the usual limits.
    pub(crate) fn current() -> Arc<Self> {
        CURRENT.try_with(Arc::clone).unwrap_or_else(|_| {
            let shared = Arc::new(Shared::new(Limits::default()));
            Arc::new(Self::new(&shared, &Request::new(Body::empty())))
        })
    }

    /// Lets it use what was computed of prompts of the same number alone.
    pub(crate) fn share_within(&self, group: u64) {
        self.group.store(group, Ordering::Relaxed);
    }

    pub(crate) fn group(&self) -> u64 {
        self.group.load(Ordering::Relaxed)
    }

    /// Lets it load, unload, bring and remove models, whatever others may.
    pub(crate) fn let_manage(&self) {
        self.may_manage.store(true, Ordering::Relaxed);
    }

    pub(crate) fn may_manage(&self) -> bool {
        self.may_manage.load(Ordering::Relaxed)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts JSON values that it has, those in texts included.
    ///
    /// # Errors
    /// If they are more than a request may have.
    pub(crate) fn count_values(&self, n: usize) -> Result<(), String> {
        let most = self.shared.limits.values();
        let n_values = self.n_values.fetch_add(n, Ordering::Relaxed).saturating_add(n);
        if n_values > most {
            return Err(format!("it has more than {most} values"));
        }
        Ok(())
    }

    /// Keeps a place in memory until the model has been asked.
    pub(crate) fn hold(&self, place: OwnedSemaphorePermit) {
        self.record().place = Some(place);
    }

    /// Notes that an answer is being made, to a prompt of so many tokens. Of its body nothing is left.
    pub(crate) fn begin_answer(&self, model: &str, n_prompt: usize) {
        let mut record = self.record();
        record.model.get_or_insert_with(|| model.to_owned());
        record.n_prompt = n_prompt;
        record.n_open += 1;
        record.place = None;
    }

    /// Notes that a model had to be loaded, which is no part of the time that an answer may take to begin.
    pub(crate) fn has_loaded(&self, time: Duration) {
        self.record().loading += time;
    }

    /// Notes a token of an answer.
    pub(crate) fn has_token(&self) {
        let mut record = self.record();
        record.n_generated += 1;
        record.first_token.get_or_insert_with(|| self.began.elapsed());
    }

    /// Notes why an answer has ended; the request has with the last of them, or with one that fails.
    pub(crate) fn end_answer(&self, reason: &str, is_failure: bool) {
        let mut record = self.record();
        record.n_open = record.n_open.saturating_sub(1);
        if is_failure || (record.n_open == 0 && record.end.is_none()) {
            record.end = Some(reason.to_owned());
        }
    }

    /// What an answer says next, unless it is late: before the first token of the request, or in all.
    ///
    /// # Errors
    /// That it is late.
    pub(crate) async fn in_time<T>(&self, next: impl Future<Output = T>) -> Result<T> {
        let Limits { first_token, request, .. } = self.shared.limits;
        let first_token = {
            let record = self.record();
            first_token
                .filter(|_| record.first_token.is_none())
                .map(|time| time.saturating_add(record.loading))
        };
        let (time, is_first) = match (first_token, request) {
            (None, None) => return Ok(next.await),
            (Some(first), None) => (first, true),
            (None, Some(whole)) => (whole, false),
            (Some(first), Some(whole)) => (first.min(whole), first <= whole),
        };
        let late = |_| match is_first {
            true => Error::NoFirstToken { time: self.shared.limits.first_token.unwrap_or(time) },
            false => Error::TookTooLong { time },
        };
        // More than a clock has is for ever.
        match self.began.checked_add(time) {
            None => Ok(next.await),
            Some(deadline) => tokio::time::timeout_at(deadline, next).await.map_err(late),
        }
    }

    /// Writes its line.
    fn log(&self, fate: Option<&Fate>, is_whole: bool) {
        let record = self.record();
        let status = record.status.unwrap_or_default();
        let said = record.status.as_ref().map_or("no answer", StatusCode::as_str);
        let gone = || fate.map_or("the client has gone", Fate::reason);
        let end = match &record.end {
            Some(end) => end.as_str(),
            None if !is_whole => gone(),
            None if status.is_success() || status.is_redirection() => "done",
            None if status.is_client_error() => "refused",
            None => "failed",
        };
        let time = self.began.elapsed().as_secs_f64();
        let Self { method, path, .. } = self;
        let Some(model) = &record.model else {
            tracing::info!("{method} {path}: {said}, {time:.3} s, {end}");
            return;
        };
        let (n_prompt, n_generated) = (record.n_prompt, record.n_generated);
        let first = record
            .first_token
            .map_or_else(|| "none".to_owned(), |time| format!("{:.3} s", time.as_secs_f64()));
        tracing::info!(
            "{method} {path}: {said}, {model}, {n_prompt} tokens in, {n_generated} out, first after {first}, \
             {time:.3} s, {end}"
        );
    }
}

/// Follows a request to the end of its answer.
pub(crate) async fn follow(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let asked = Arc::new(Asked::new(&shared, &request));
    let fate = request.extensions().get::<Fate>().cloned();
    let line = Line { asked: Arc::clone(&asked), fate, is_whole: false };
    let response = CURRENT.scope(Arc::clone(&asked), next.run(request)).await;
    asked.record().status = Some(response.status());
    response.map(|body| Body::new(Answer::new(body, line)))
}

/// Logs a request when nothing more can come of it.
struct Line {
    asked: Arc<Asked>,
    fate: Option<Fate>,
    /// Whether the client was handed all of the answer.
    is_whole: bool,
}

impl UntilEnd for Line {
    fn body_has_ended(&mut self) {
        self.is_whole = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.asked.log(self.fate.as_ref(), self.is_whole);
    }
}
