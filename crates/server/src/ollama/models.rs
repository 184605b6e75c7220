//! The models that are here, and the server itself.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};

use super::Failure;
use crate::fields::Fields;
use crate::host::Host;
use crate::service::Service;

pub(super) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn tags(State(service): State<Service>) -> Json<Value> {
    let models: Vec<_> = service.hosts().iter().map(|host| describe(host, &service)).collect();
    Json(json!({ "models": models }))
}

/// Those in memory, which are all, for good.
pub(super) async fn running(State(service): State<Service>) -> Json<Value> {
    let models = service.hosts().iter().map(|host| {
        let mut model = describe(host, &service);
        model["context_length"] = host.n_ctx().into();
        model["size_vram"] = 0.into();
        model["expires_at"] = "9999-12-31T23:59:59Z".into();
        model
    });
    Json(json!({ "models": models.collect::<Vec<_>>() }))
}

pub(super) async fn show(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let mut fields = Fields::of_body(&body)?;
    let name: Option<String> = fields.take("model")?.or(fields.take("name")?);
    fields.refuse_rest(&["verbose", "system", "template", "options"])?;
    let host = service.host(name.as_deref())?;
    let architecture = host.architecture();
    let mut capabilities = vec!["completion"];
    capabilities.extend(host.format().has_calls().then_some("tools"));
    capabilities.extend(host.format().has_reasoning().then_some("thinking"));
    Ok(Json(json!({
        "details": details(host),
        "model_info": {
            "general.architecture": architecture,
            format!("{architecture}.context_length"): host.n_ctx(),
        },
        "capabilities": capabilities,
        "modified_at": service.started().to_string(),
    })))
}

fn describe(host: &Host, service: &Service) -> Value {
    json!({
        "name": host.name(),
        "model": host.name(),
        "modified_at": service.started().to_string(),
        "size": host.n_bytes(),
        // Not computed; clients cut it short.
        "digest": "0".repeat(64),
        "details": details(host),
    })
}

fn details(host: &Host) -> Value {
    let family = host.architecture();
    json!({
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": "",
        "parent_model": "",
    })
}
