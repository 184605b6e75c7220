//! `/v1/completions`: texts that go on.

use std::collections::VecDeque;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use metallic::engine::Stats;
use metallic::text::Part;
use serde_json::{Value, json};

use super::chat::{Head, Limits, ask_each};
use super::{Failure, HARMLESS, MAX_CHOICES, done, event, finish_reason, heartbeat, streaming, usage};
use crate::ask::{self, Question, Reply, Said, sampling};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::service::Service;
use crate::stream::{self, Writer};

/// How texts go on, whole or as it comes.
pub(super) async fn complete(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?;
    let host = &service.host(name.as_deref()).await?;
    let prompts = prompts(fields.value("prompt"))?;
    let limits = Limits::read(&mut fields)?;
    let sampling = sampling(&mut fields, host.tokenizer().n_vocab())?;
    let n_choices: usize = fields.take("n")?.unwrap_or(1);
    if n_choices == 0 || n_choices.saturating_mul(prompts.len()) > MAX_CHOICES {
        let reason =
            format!("with {} prompts there can be from 1 to {MAX_CHOICES} answers in all", prompts.len());
        return Err(Error::field("n", reason).into());
    }
    let (streams, includes_usage) = streaming(&mut fields)?;
    fields.pass_defaults(&[("best_of", json!(1)), ("suffix", json!(""))]);
    let grammar = ask::grammar(&mut fields, None)?;
    if fields.take("echo")? == Some(true) {
        return Err(Error::field("echo", "prompts are not repeated").into());
    }
    fields.refuse_rest(&HARMLESS)?;
    let form = ask::form(host, grammar).await?;

    let mut replies = Vec::new();
    for prompt in prompts {
        let mut question = match prompt {
            Prompt::Text(text) => Question::of_text(host, text).await?,
            Prompt::Tokens(tokens) => Question::of_tokens(tokens),
        };
        let Limits { max_tokens, stop, ignore_eos } = limits.clone();
        let request = &mut question.request;
        (request.sampling, request.max_tokens) = (sampling.clone(), max_tokens);
        (request.stop, request.ignore_eos) = (stop, ignore_eos);
        request.form.clone_from(&form);
        replies.extend(ask_each(question, n_choices, host).await?);
    }
    let head = Head::new("cmpl", host.name());
    if streams {
        let writer = TextChunks { head, includes_usage, stats: Vec::new() };
        return Ok(stream::server_sent(replies, writer, heartbeat()));
    }
    let whole = try_join_all(replies.into_iter().map(Reply::whole)).await?;
    let choices = whole
        .iter()
        .enumerate()
        .map(|(index, whole)| choice(index, &whole.said.content, Some(finish_reason(whole.reason, false))));
    let mut response = head.object("text_completion", choices.collect());
    response["usage"] = usage(whole.iter().map(|whole| &whole.stats));
    Ok(Json(response).into_response())
}

/// A text to go on with.
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// One or several, as text or as tokens.
fn prompts(value: Option<Value>) -> Result<Vec<Prompt>> {
    let wrong = || Error::field("prompt", "it must be a text, tokens, or an array of either");
    let tokens = |values: &[Value]| -> Option<Vec<u32>> {
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        values.iter().map(number).collect()
    };
    let one = |value: &Value| match value {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(values) => tokens(values).map(Prompt::Tokens).ok_or_else(wrong),
        _ => Err(wrong()),
    };
    match value {
        None => Err(Error::field("prompt", "it is missing")),
        Some(Value::Array(values)) if values.is_empty() => Err(wrong()),
        Some(Value::Array(values)) if values.len() > MAX_CHOICES && !values[0].is_number() => {
            Err(Error::field("prompt", format!("there can be {MAX_CHOICES} of them")))
        }
        Some(Value::Array(values)) => match tokens(&values) {
            Some(tokens) => Ok(vec![Prompt::Tokens(tokens)]),
            None => values.iter().map(one).collect(),
        },
        Some(value) => Ok(vec![one(&value)?]),
    }
}

fn choice(index: usize, text: &str, finish_reason: Option<&str>) -> Value {
    json!({ "index": index, "text": text, "logprobs": null, "finish_reason": finish_reason })
}

/// Chunks of answers as they come.
struct TextChunks {
    head: Head,
    includes_usage: bool,
    stats: Vec<Stats>,
}

impl Writer for TextChunks {
    type Item = Event;

    fn said(&mut self, index: usize, said: Said, events: &mut VecDeque<Event>) {
        let choice = match said {
            Said::Part(Part::Content(text)) => choice(index, &text, None),
            Said::End { reason, stats, .. } => {
                self.stats.push(stats);
                choice(index, "", Some(finish_reason(reason, false)))
            }
            _ => return,
        };
        let mut chunk = self.head.object("text_completion", vec![choice]);
        if self.includes_usage {
            chunk["usage"] = Value::Null;
        }
        events.push_back(event(&chunk));
    }

    fn ended(&mut self, events: &mut VecDeque<Event>) {
        if self.includes_usage {
            let mut chunk = self.head.object("text_completion", Vec::new());
            chunk["usage"] = usage(self.stats.iter());
            events.push_back(event(&chunk));
        }
        events.push_back(done());
    }

    fn failed(&mut self, error: Error) -> Event {
        event(&Failure(error).body())
    }
}
