//! `/v1/models`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Failure;
use crate::host::Host;
use crate::service::Service;

/// The models that answer.
pub(super) async fn list(State(service): State<Service>) -> Json<Value> {
    let models: Vec<_> = service.hosts().iter().map(|host| describe(host, &service)).collect();
    Json(json!({ "object": "list", "data": models }))
}

/// One of them.
pub(super) async fn one(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Failure> {
    Ok(Json(describe(service.host(Some(&name))?, &service)))
}

fn describe(host: &Host, service: &Service) -> Value {
    json!({
        "id": host.name(),
        "object": "model",
        "created": service.started().as_second(),
        "owned_by": "metallic",
        "context_length": host.n_ctx(),
    })
}
