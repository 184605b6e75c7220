//! What can go wrong with a request. Each API writes it in its vendor's form.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metallic::text::{TemplateError, TokenizerError};
use serde_json::Value;

use crate::library::Refused;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Seconds after which a client may try again that was told that too many are waiting.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The body is not what the endpoint takes.
    #[error("{reason}")]
    Body { reason: String },

    /// A field's value is wrong, or it can't be taken into account.
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },

    #[error("no model is called {name:?}; there are: {}", known.join(", "))]
    UnknownModel { name: String, known: Vec<String> },

    #[error("there is no model here")]
    NoModels,

    #[error("this server has the models that it was started with")]
    NoLibrary,

    #[error(
        "requests may not load, unload, bring or remove models: the server was started without --manage, or they bring no key for it"
    )]
    NotManaged,

    #[error("{name} is in use: try again when it has answered")]
    Busy { name: String },

    /// A model can't be loaded, brought or removed.
    #[error("{}", .0.message)]
    Library(Refused),

    /// The model can't take the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),

    #[error("the model has no chat template: it continues texts, at /v1/completions")]
    NoTemplate,

    #[error(
        "the model was not trained to fill in: its vocabulary has no tokens for what is before and after a gap"
    )]
    NoInfill,

    #[error("models here make texts, no embeddings")]
    NoEmbeddings,

    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),

    /// The engine refuses the request, or failed on the way.
    #[error("{0}")]
    Engine(Arc<metallic::Error>),

    /// More tokens than the server takes, though the context may hold them.
    #[error("the prompt has {n_prompt} tokens, and this server takes {most}: shorten it")]
    PromptTooLong { n_prompt: usize, most: usize },

    /// More requests are there than may wait.
    #[error("{n_waiting} requests are waiting already: try again later")]
    QueueFull { n_waiting: usize },

    #[error("no answer began within {} seconds: the server is busy, or the prompt takes longer", time.as_secs_f32())]
    NoFirstToken { time: Duration },

    #[error("the answer took longer than the {} seconds that a request may take", time.as_secs_f32())]
    TookTooLong { time: Duration },

    /// The thread of the model is gone: a bug.
    #[error("the model has stopped: the server's log says why")]
    Stopped,
}

impl Error {
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Field { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Error::Body { .. }
            | Error::Field { .. }
            | Error::Template(_)
            | Error::NoTemplate
            | Error::NoInfill
            | Error::NoEmbeddings
            | Error::PromptTooLong { .. }
            | Error::Tokenizer(_) => StatusCode::BAD_REQUEST,
            Error::UnknownModel { .. } => StatusCode::NOT_FOUND,
            Error::NoLibrary | Error::NotManaged => StatusCode::FORBIDDEN,
            Error::Busy { .. } => StatusCode::CONFLICT,
            Error::Library(refused) if refused.is_unknown => StatusCode::NOT_FOUND,
            Error::Library(refused) if refused.floor_bytes.is_some() => StatusCode::INSUFFICIENT_STORAGE,
            Error::Library(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Error::NoModels | Error::NoFirstToken { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::TookTooLong { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Engine(error) => match **error {
                metallic::Error::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
                metallic::Error::EmptyPrompt
                | metallic::Error::PromptTooLong { .. }
                | metallic::Error::TokenOutOfRange { .. }
                | metallic::Error::Grammar { .. }
                | metallic::Error::Sampling(_) => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Error::Stopped => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A response with a body in a vendor's form. One who is told that too many wait hears when to try again, and one whose
    /// answer takes too long that it would take as long again: the vendors' clients ask by themselves else.
    pub(crate) fn respond(&self, body: Value) -> Response {
        let mut response = (self.status(), Json(body)).into_response();
        match self {
            Error::TookTooLong { .. } => {
                response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
            }
            _ if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
                .contains(&self.status()) =>
            {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            _ => {}
        }
        response
    }

    /// The field that is at fault, if one is.
    pub(crate) fn param(&self) -> Option<&str> {
        match self {
            Error::Field { field, .. } => Some(field),
            Error::UnknownModel { .. } => Some("model"),
            _ => None,
        }
    }
}
