//! How the server is.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::service::Service;

pub(crate) fn routes() -> Router<Service> {
    Router::new().route("/health", get(health))
}

/// As llama-server tells it: models are loaded before anything is served.
async fn health(State(service): State<Service>) -> Json<Value> {
    let n_slots: usize = service.hosts().iter().map(|host| host.n_sequences()).sum();
    Json(json!({ "status": "ok", "slots": n_slots }))
}
