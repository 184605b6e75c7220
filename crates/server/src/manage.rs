//! What the page asks: where the bytes are, what a model would take, and to load and unload it.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::library::{Outline, Wish};
use crate::service::{Known, Service};

pub(crate) fn routes() -> Router<Service> {
    Router::new()
        .route("/metallic/state", get(state))
        .route("/metallic/plan", post(plan))
        .route("/metallic/load", post(load))
        .route("/metallic/unload", post(unload))
}

/// An error, with what it takes at least where there is too little memory.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = json!({ "message": self.0.to_string() });
        if let Error::Library(refused) = &self.0
            && let Some(floor_bytes) = refused.floor_bytes
        {
            error["floor_bytes"] = floor_bytes.into();
        }
        (self.0.status(), Json(json!({ "error": error }))).into_response()
    }
}

/// What lies where, and what is going on.
async fn state(State(service): State<Service>) -> Json<Value> {
    let known = service.known();
    let outlines = || known.iter().filter_map(|known| known.loaded.as_ref()).map(|(_, outline)| outline);
    let own_bytes = service.terms().own_bytes;
    let used = outlines().map(|outline| outline.ram_bytes).sum::<u64>() + own_bytes;
    let mut vram: Vec<(String, u64, u64)> = Vec::new();
    for device in outlines().flat_map(|outline| &outline.devices) {
        match vram.iter_mut().find(|(name, ..)| *name == device.name) {
            Some((_, _, used)) => *used += device.bytes,
            None => vram.push((device.name.clone(), device.budget_bytes, device.bytes)),
        }
    }
    let vram =
        vram.into_iter().map(|(name, bytes, used)| json!({ "name": name, "bytes": bytes, "used": used }));
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "can_manage": service.is_managed(),
        "ram": {
            "bytes": service.terms().ram_bytes.map_or(used, |bytes| bytes + own_bytes),
            "used": used,
            // Of that, for connections and requests.
            "server": own_bytes,
        },
        "vram": vram.collect::<Vec<_>>(),
        "models": known.iter().map(describe).collect::<Vec<_>>(),
    }))
}

fn describe(known: &Known) -> Value {
    let Known { name, n_bytes, loaded, progress, failure } = known;
    let state = match (loaded, progress, failure) {
        (Some(_), ..) => "loaded",
        (_, Some(_), _) => "loading",
        (.., Some(_)) => "failed",
        _ => "unloaded",
    };
    let share = progress.map(|(done, total)| if total == 0 { 0.0 } else { done as f64 / total as f64 });
    let mut model = json!({
        "name": name,
        "state": state,
        "error": failure,
        "progress": share,
        "file_bytes": n_bytes,
        "n_ctx": null,
        "n_parallel": null,
        "n_open": 0,
        "ram_bytes": null,
        "things": [],
        "rates": { "generation": null, "prompt": null, "bytes_per_token": 0, "wait_share": null },
        "predicted": null,
    });
    if let Some((host, outline)) = loaded {
        let counts = host.counts();
        let prompt = counts.n_read as f64 / counts.prefill.as_secs_f64();
        let lately = counts.lately;
        model["n_ctx"] = host.n_ctx().into();
        model["n_parallel"] = host.n_sequences().into();
        model["n_open"] = counts.n_open.into();
        model["ram_bytes"] = outline.ram_bytes.into();
        model["things"] = json!(outline.things);
        model["predicted"] = json!(outline.predicted);
        model["rates"] = json!({
            "generation": (lately.generation > 0.0).then_some(lately.generation),
            // Of all prompts so far.
            "prompt": prompt.is_finite().then_some(prompt),
            "bytes_per_token": outline.bytes_per_token,
            "wait_share": lately.wait_share,
        });
    }
    model
}

/// A model, and what is wished of it.
async fn wish(body: Bytes, service: &Service) -> Result<(String, Wish)> {
    let mut fields = Fields::of_body(body).await?;
    let name: String = fields.required("model")?;
    let name = service.full_name(Some(&name))?;
    let wish = Wish { ram_bytes: fields.take("ram")?, n_ctx: fields.take("n_ctx")? };
    fields.refuse_rest(&[])?;
    Ok((name, wish))
}

/// What a model would hold within so much memory.
async fn plan(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let (name, wish) = wish(body, &service).await?;
    let Outline { things, n_ctx, ram_bytes, predicted, .. } = service.outline(&name, &wish, true).await?;
    service.predict_loaded(&name).await;
    Ok(Json(json!({ "things": things, "n_ctx": n_ctx, "ram_bytes": ram_bytes, "predicted": predicted })))
}

/// Loads a model, anew if it is loaded with another wish.
async fn load(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let (name, wish) = wish(body, &service).await?;
    service.allow_managing()?;
    if wish != Wish::default() {
        // Before what runs is given up.
        service.outline(&name, &wish, false).await?;
        service.unload(&name).await?;
    }
    service.load(&name, &wish).await?;
    Ok(Json(json!({})))
}

async fn unload(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let (name, _) = wish(body, &service).await?;
    service.allow_managing()?;
    service.unload(&name).await?;
    Ok(Json(json!({})))
}
