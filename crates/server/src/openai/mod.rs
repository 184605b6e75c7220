//! OpenAI's API.

mod chat;
mod completions;
pub(crate) mod messages;
mod models;
mod responses;
mod tools;

use axum::Router;
use axum::http::StatusCode;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metallic::FinishReason;
use metallic::engine::Stats;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::service::Service;

/// Fields of requests that change no answer of ours: for whom it is, and where others would keep it.
pub(crate) const HARMLESS: [&str; 12] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "cache_prompt",
    "prompt_cache_retention",
    "timings_per_token",
    "reasoning_format",
    "keep_alive",
    "verbosity",
];

pub(crate) fn routes() -> Router<Service> {
    Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        // As llama-server has them, too.
        .route("/chat/completions", post(chat::complete))
        .route("/completions", post(completions::complete))
        .route("/v1/responses", post(responses::create))
        .route("/v1/embeddings", post(embed))
        .route("/models", get(models::list))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one))
}

/// What is not a model's to do here, said in a form that clients show.
async fn embed() -> Failure {
    Failure(Error::NoEmbeddings)
}

/// An error in OpenAI's form.
pub(crate) struct Failure(pub(crate) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl Failure {
    /// As clients read it, in a response or in the midst of a stream.
    pub(crate) fn body(&self) -> Value {
        let Self(error) = self;
        let kind = match error.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let code = match error {
            Error::UnknownModel { .. } => Some("model_not_found"),
            Error::PromptTooLong { .. } => Some("context_length_exceeded"),
            Error::Engine(error) if matches!(**error, metallic::Error::PromptTooLong { .. }) => {
                Some("context_length_exceeded")
            }
            _ => None,
        };
        json!({ "error": {
            "message": error.to_string(),
            "type": kind,
            "param": error.param(),
            "code": code,
        }})
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.0.respond(self.body())
    }
}

/// Answers to a request at most.
const MAX_CHOICES: usize = 128;

/// Whether an answer is wanted as it comes, and whether with what it took.
fn streaming(fields: &mut Fields) -> Result<(bool, bool)> {
    let streams = fields.take("stream")?.unwrap_or(false);
    let options = fields.object("stream_options")?;
    let includes_usage = options.map(|mut options| options.take("include_usage")).transpose()?.flatten();
    Ok((streams, includes_usage.unwrap_or(false)))
}

/// A chunk of a stream.
fn event(chunk: &Value) -> Event {
    Event::default().data(chunk.to_string())
}

/// What ends a stream that has no error.
fn done() -> Event {
    Event::default().data("[DONE]")
}

/// What clients take no notice of.
pub(crate) fn heartbeat() -> Event {
    Event::default().comment("")
}

/// Why an answer ended, in OpenAI's words.
fn finish_reason(reason: FinishReason, has_calls: bool) -> &'static str {
    match reason {
        FinishReason::StopToken | FinishReason::StopString if has_calls => "tool_calls",
        FinishReason::StopToken | FinishReason::StopString | FinishReason::Cancelled => "stop",
        FinishReason::MaxTokens | FinishReason::ContextFull => "length",
    }
}

/// What the answers to one prompt took.
fn usage<'a>(answers: impl Iterator<Item = &'a Stats> + Clone) -> Value {
    let n_prompt = answers.clone().next().map_or(0, |stats| stats.n_prompt);
    let n_cached = answers.clone().next().map_or(0, |stats| stats.n_cached);
    let n_generated: usize = answers.map(|stats| stats.n_generated).sum();
    json!({
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "prompt_tokens_details": { "cached_tokens": n_cached },
    })
}
