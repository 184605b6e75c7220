//! The models that are here, and the server itself.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};

use super::Failure;
use crate::fields::Fields;
use crate::library::Description;
use crate::service::{Known, Service};

pub(super) async fn version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn tags(State(service): State<Service>) -> Json<Value> {
    let models: Vec<_> = service.known().iter().map(|known| describe(known, &service)).collect();
    Json(json!({ "models": models }))
}

/// Those in memory, until that is needed.
pub(super) async fn running(State(service): State<Service>) -> Json<Value> {
    let models = service.known().into_iter().filter_map(|known| {
        let mut model = describe(&known, &service);
        let (host, outline) = known.loaded?;
        let vram: u64 = outline.devices.iter().map(|device| device.bytes).sum();
        model["context_length"] = host.n_ctx().into();
        model["size"] = (outline.ram_bytes + vram).into();
        model["size_vram"] = vram.into();
        model["expires_at"] = "9999-12-31T23:59:59Z".into();
        Some(model)
    });
    Json(json!({ "models": models.collect::<Vec<_>>() }))
}

pub(super) async fn show(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let name: Option<String> = fields.take("model")?.or(fields.take("name")?);
    fields.refuse_rest(&["verbose", "system", "template", "options"])?;
    let model = service.describe(&service.full_name(name.as_deref())?).await?;
    let Description { architecture, context_length, n_params, quantization, .. } = &model;
    let mut capabilities = vec!["completion"];
    capabilities.extend(model.has_calls.then_some("tools"));
    capabilities.extend(model.has_reasoning.then_some("thinking"));
    let mut details = details(Some(architecture));
    details["quantization_level"] = quantization.as_str().into();
    details["parameter_size"] = in_short(*n_params).into();
    Ok(Json(json!({
        "details": details,
        "model_info": {
            "general.architecture": architecture,
            "general.parameter_count": n_params,
            format!("{architecture}.context_length"): context_length,
        },
        "capabilities": capabilities,
        "modified_at": service.started().to_string(),
    })))
}

/// A number of weights as models are called by it, such as 7.2B; nothing for 0.
fn in_short(n_params: u64) -> String {
    match n_params as f64 {
        0.0 => String::new(),
        n if n < 1e9 => format!("{:.0}M", n / 1e6),
        n => format!("{:.1}B", n / 1e9),
    }
}

fn describe(known: &Known, service: &Service) -> Value {
    json!({
        "name": known.name,
        "model": known.name,
        "modified_at": service.started().to_string(),
        "size": known.n_bytes,
        // Not computed; clients cut it short.
        "digest": "0".repeat(64),
        "details": details(known.loaded.as_ref().map(|(host, _)| host.architecture())),
    })
}

/// Of an architecture, which is known of models that are loaded.
fn details(family: Option<&str>) -> Value {
    json!({
        "format": "gguf",
        "family": family.unwrap_or_default(),
        "families": family.as_slice(),
        "parameter_size": "",
        "quantization_level": "",
        "parent_model": "",
    })
}
