//! `metallic batch`: a file of requests, answered many at a time, that can be gone on with whenever it was stopped.
//!
//! Requests go the way of the server's, so that they mean the same and have the same errors.

mod input;
mod output;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use metallic_server::{Access, Library as _, Limits, Options, Response, Service, Wish, answer_all, router};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::input::{Input, Place, Wrong};
use self::output::{Answer, LineError, Output};
use crate::args::BatchArgs;
use crate::budget;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::{Fetcher, ModelName, catalogue};
use crate::serve::library::Models;
use crate::serve::{CLIENTS_SHARE, name_of};
use crate::speculation;

/// Requests at a time unless another number is asked for.
const PARALLEL: u16 = 16;

/// Requests beside them, so that there is a next one when one is answered.
const N_AHEAD: usize = 8;

/// Requests in a row that fail for no fault of theirs, after which no more are tried.
const MAX_FAILURES: usize = 8;

/// Answers all requests that have no answer yet.
pub(crate) fn run(args: &BatchArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let (terminal, interrupt) = (fetcher.terminal, fetcher.interrupt);
    let mut input = Input::open(&args.input)?;
    let model = args.model.clone().unwrap_or(ModelName::Catalogue(catalogue::DEFAULT));
    let path = fetcher.locate(&model)?.path;
    let mut output = Output::open(&args.output, &[&args.input, &path])?;
    let n_wrong = input.wrong.len();
    for wrong in &input.wrong {
        add_wrong(&mut output, wrong)?;
    }
    let mut left = Vec::new();
    for place in &input.requests {
        if !output.has(&place.id, Some(&place.custom_id))? {
            left.push(place.clone());
        }
    }
    let (n_all, n_left) = (input.requests.len(), left.len());
    if n_wrong > 0 {
        tracing::warn!("{}, which has no answer but an error", lines(&input.wrong));
    }
    if n_left == 0 {
        terminal.note(format_args!("all of {n_all} requests are answered in {}", args.output.display()));
        return Ok(());
    }
    if n_left < n_all {
        terminal.note(format_args!("{} of {n_all} requests are answered already", n_all - n_left));
    }

    let name = name_of(&model);
    let (service, limits, n_parallel) = service(args, &name, path, fetcher)?;
    let router = router(service, Options { access: Access::default(), limits, page: false });
    let bar = terminal.step_bar("answering", n_all as u64);
    bar.set_position((n_all - n_left) as u64);
    bar.reset_eta();
    let mut tally = Tally::default();
    let began = Instant::now();
    let heed = interrupt.heed();
    let mut places = left.into_iter();
    let next = || places.next().map(|place| Ok((place.clone(), input.question(&place, &name)?))).transpose();
    let done = |place: Place, response: Response| {
        if tally.add(&place, &response)? {
            add(&mut output, &place, &response)?;
            bar.inc(1);
        }
        bar.set_message(format!(
            "answering, {:.1} tokens/s",
            tally.n_tokens as f64 / began.elapsed().as_secs_f64()
        ));
        Ok(())
    };
    let answered = answer_all(&router, usize::from(n_parallel) + N_AHEAD, next, done, || heed.is_pressed());
    bar.finish_and_clear();
    let cannot = |error| Failure::new(Kind::General, "can't answer requests").because(error);
    let answered = answered.map_err(cannot)?.and_then(|()| heed.check());
    drop(heed);
    let n_answered = n_all - n_left + tally.n_answered;
    let seconds = began.elapsed().as_secs_f64();
    let rest = if n_answered < n_all { "; the same command goes on from there" } else { "" };
    terminal.note(format_args!(
        "{n_answered} of {n_all} requests are answered{}, now {} tokens in {seconds:.1} s ({:.1} tokens/s){rest}",
        tally.refused(),
        tally.n_tokens,
        tally.n_tokens as f64 / seconds,
    ));
    answered?;
    tally.failed()
}

/// The model behind a server's endpoints, within the budget, and how many requests it answers at a time.
fn service(
    args: &BatchArgs,
    name: &str,
    path: PathBuf,
    fetcher: &Fetcher<'_>,
) -> Result<(Service, Limits, u16)> {
    let ram_bytes = budget::to_run_in(&args.engine.compute).map(|budget| budget.ram_bytes);
    let draft = speculation::draft_file(&args.speculation, fetcher)?;
    let models = |n_parallel: u16| {
        let n_ctx =
            args.engine.ctx_size.map_or(metallic::loader::DEFAULT_MAX_CONTEXT, |n_ctx| n_ctx as usize);
        let usual =
            Limits { queue: N_AHEAD, connections: 0, first_token: None, request: None, ..Limits::default() };
        let share = ram_bytes.map_or(u64::MAX, |bytes| bytes / CLIENTS_SHARE);
        let limits = Limits { queue: N_AHEAD, ..usual.within(share, n_ctx, n_parallel.into()) };
        let mut engine = args.engine.clone();
        engine.n_sequences = n_parallel.into();
        let models = Models {
            named: vec![(name.to_owned(), path.clone())],
            folder: None,
            has_store: false,
            engine,
            draft: draft.clone(),
            speculation: args.speculation.clone(),
            request_bytes: limits.bytes_of_model(n_ctx, n_parallel.into()),
            chat_template: args.chat_template.clone(),
            terminal: fetcher.terminal.clone(),
            rates: Mutex::default(),
        };
        let wish =
            Wish { ram_bytes: ram_bytes.map(|bytes| bytes.saturating_sub(limits.bytes())), n_ctx: None };
        (models, limits, wish)
    };
    let n_ctx = |n_parallel| {
        let (models, _, wish) = models(n_parallel);
        models.outline(name, &wish, false).map_or(0, |outline| outline.n_ctx)
    };
    let n_parallel = args.parallel.unwrap_or_else(|| {
        let alone = n_ctx(1);
        let mut n_parallel = PARALLEL;
        while n_parallel > 1 && n_ctx(n_parallel) < alone {
            n_parallel /= 2;
        }
        n_parallel
    });
    let (models, limits, wish) = models(n_parallel);
    let (_, hosted) = models.load_first(name, &wish)?;
    Ok((Service::new([hosted]), limits, n_parallel))
}

fn add_wrong(output: &mut Output, wrong: &Wrong) -> Result<()> {
    let Wrong { id, custom_id, line, reason } = wrong;
    if output.has(id, None)? {
        return Ok(());
    }
    let message = format!("line {line}: {reason}");
    let error = LineError { code: "invalid_request", message, line: *line };
    output.add(&Answer { id, custom_id: custom_id.as_deref(), response: None, error: Some(error) })
}

fn add(output: &mut Output, place: &Place, response: &Response) -> Result<()> {
    let Place { id, custom_id, .. } = place;
    let body: &RawValue = serde_json::from_slice(&response.body)
        .map_err(|error| Failure::new(Kind::General, "an answer is no JSON").because(error))?;
    let response = output::Response { status_code: response.status, request_id: id, body };
    output.add(&Answer { id, custom_id: Some(custom_id), response: Some(response), error: None })
}

/// A sentence on lines that are no requests.
fn lines(wrong: &[Wrong]) -> String {
    let first = wrong.first().map_or(String::new(), |wrong| format!("line {}: {}", wrong.line, wrong.reason));
    match wrong.len() {
        1 => format!("one line is no request ({first})"),
        n => format!("{n} lines are no requests (the first is {first})"),
    }
}

/// What came of requests.
#[derive(Default)]
struct Tally {
    n_answered: usize,
    n_refused: usize,
    n_tokens: u64,
    n_failed: usize,
    /// Of these, those since the last that did not.
    n_in_a_row: usize,
    /// Why the first did.
    reason: String,
}

/// What is looked at of a response.
#[derive(Deserialize)]
struct Body {
    usage: Option<Usage>,
    error: Option<Reason>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(alias = "output_tokens", default)]
    completion_tokens: u64,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

impl Tally {
    /// Counts a response, and whether it is the request's: one that failed is asked again by the next run.
    ///
    /// # Errors
    /// As many have failed as say that no more will do better.
    fn add(&mut self, place: &Place, response: &Response) -> Result<bool> {
        let body = serde_json::from_slice(&response.body).unwrap_or(Body { usage: None, error: None });
        self.n_tokens += body.usage.map_or(0, |usage| usage.completion_tokens);
        if response.status < 500 {
            self.n_answered += 1;
            self.n_refused += usize::from(response.status >= 400);
            self.n_in_a_row = 0;
            return Ok(true);
        }
        let reason = body.error.map_or_else(|| format!("status {}", response.status), |error| error.message);
        tracing::warn!("line {} ({:?}) failed: {reason}", place.line, place.custom_id);
        if self.n_failed == 0 {
            self.reason = reason;
        }
        self.n_failed += 1;
        self.n_in_a_row += 1;
        if self.n_in_a_row == MAX_FAILURES { self.failed().map(|()| false) } else { Ok(false) }
    }

    /// Of the answers, those that say that there is none.
    fn refused(&self) -> String {
        if self.n_refused == 0 {
            String::new()
        } else {
            format!(", {} of them with an error", self.n_refused)
        }
    }

    /// The failure to answer some.
    fn failed(&self) -> Result<()> {
        if self.n_failed == 0 {
            return Ok(());
        }
        let what = format!("{} requests failed", self.n_failed);
        let failure = Failure::new(Kind::General, what).because(self.reason.clone());
        Err(failure.advice("run the same command to ask them again"))
    }
}
