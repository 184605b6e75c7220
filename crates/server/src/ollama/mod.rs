//! Ollama's API.

mod answers;
mod manage;
mod models;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::json;

use crate::error::Error;
use crate::service::Service;

pub(crate) fn routes() -> Router<Service> {
    Router::new()
        .route("/api/chat", post(answers::chat))
        .route("/api/generate", post(answers::generate))
        .route("/api/embed", post(embed))
        .route("/api/embeddings", post(embed))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::running))
        .route("/api/show", post(models::show))
        .route("/api/pull", post(manage::pull))
        .route("/api/delete", delete(manage::delete))
        .route("/api/version", get(models::version))
}

/// What is not a model's to do here, said in a form that clients show.
async fn embed() -> Failure {
    Failure(Error::NoEmbeddings)
}

/// An error in Ollama's form.
pub(crate) struct Failure(pub(crate) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.respond(json!({ "error": self.0.to_string() }));
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            // Ollama's word for too many that wait.
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}
