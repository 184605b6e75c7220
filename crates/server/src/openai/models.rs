//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Failure;
use crate::error::Error;
use crate::service::{Known, Service};

/// The models that answer.
pub(super) async fn list(State(service): State<Service>) -> Json<Value> {
    let models: Vec<_> = service.known().iter().map(|known| describe(known, &service)).collect();
    Json(json!({ "object": "list", "data": models }))
}

/// One of them.
pub(super) async fn one(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    let name = service.full_name(Some(&name))?;
    let known = service.known().into_iter().find(|known| known.name == name).ok_or(Error::NoModels)?;
    Ok(Json(describe(&known, &service)))
}

fn describe(known: &Known, service: &Service) -> Value {
    json!({
        "id": known.name,
        "object": "model",
        "created": service.started().as_second(),
        "owned_by": "metallic",
        // Of one that is not loaded it depends on the memory that is left.
        "context_length": known.loaded.as_ref().map(|(host, _)| host.n_ctx()),
    })
}
