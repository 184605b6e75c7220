//! What llama-server has beside the vendors' APIs: how the server is, texts and tokens, and its own way to go on with a text.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metallic::FinishReason;
use metallic::engine::{Grammar, Stats};
use metallic::text::{EncodeOptions, Part};
use serde_json::{Value, json};

use crate::ask::{self, Calls, Conversation, Question, Said, in_background, sampling};
use crate::asked::Asked;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::host::Host;
use crate::metrics;
use crate::openai::{Failure, HARMLESS, heartbeat, messages};
use crate::service::Service;
use crate::stream::{self, Writer};

pub(crate) fn routes() -> Router<Service> {
    Router::new()
        .route("/health", get(health))
        .route("/v1/health", get(health))
        .route("/props", get(props))
        .route("/metrics", get(metrics::all))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
        .route("/slots", get(slots))
        .route("/completion", post(complete))
        .route("/infill", post(fill_in))
}

async fn health(State(service): State<Service>) -> Json<Value> {
    let n_slots: usize = service.hosts().iter().map(|host| host.n_sequences()).sum();
    Json(json!({ "status": "ok", "slots": n_slots }))
}

/// What the first model was loaded with, if it is.
async fn props(State(service): State<Service>) -> Result<Json<Value>, Failure> {
    let known = service.known().into_iter().next().ok_or(Error::NoModels)?;
    let host = known.loaded.as_ref().map(|(host, _)| host);
    Ok(Json(json!({
        "default_generation_settings": { "n_ctx": host.map(|host| host.n_ctx()) },
        "total_slots": host.map(|host| host.n_sequences()),
        "model_alias": known.name,
        "build_info": concat!("metallic ", env!("CARGO_PKG_VERSION")),
    })))
}

/// The places of all loaded models, and whether somebody is being answered in each.
async fn slots(State(service): State<Service>) -> Json<Value> {
    let places = service.hosts().into_iter().flat_map(|host| {
        let n_open = host.counts().n_open;
        (0..host.n_sequences()).map(move |place| {
            json!({ "model": host.name(), "n_ctx": host.n_ctx(), "is_processing": place < n_open })
        })
    });
    let numbered = places.enumerate().map(|(id, mut place)| {
        place["id"] = id.into();
        place
    });
    Json(numbered.collect())
}

/// The tokens of a text.
async fn tokenize(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let host = &service.host(fields.take::<String>("model")?.as_deref()).await?;
    let content: String = fields.required("content")?;
    let adds_special = fields.take("add_special")?.unwrap_or(false);
    let options = EncodeOptions {
        add_bos: adds_special,
        add_eos: adds_special,
        parse_special: fields.take("parse_special")?.unwrap_or(true),
    };
    let with_pieces = fields.take("with_pieces")?.unwrap_or(false);
    fields.refuse_rest(&[])?;
    let tokenizer = Arc::clone(host.tokenizer());
    let tokens = in_background(move || Ok(tokenizer.encode(&content, options)?)).await?;
    let most = Asked::current().shared.limits.values();
    if tokens.len() > most {
        let reason = format!("it has {} tokens, of which {most} can be told", tokens.len());
        return Err(Error::field("content", reason).into());
    }
    let piece = |token: &u32| {
        let piece = host.tokenizer().piece(*token).unwrap_or_default();
        // As a text where it is one, else as its bytes.
        let piece = std::str::from_utf8(piece).map_or_else(|_| json!(piece), |text| json!(text));
        json!({ "id": token, "piece": piece })
    };
    // One object at a time: together they would take many times the memory of their text.
    let mut text = "{\"tokens\":[".to_owned();
    for (i, token) in tokens.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = match with_pieces {
            true => write!(text, "{comma}{}", piece(token)),
            false => write!(text, "{comma}{token}"),
        };
    }
    text.push_str("]}");
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The text of tokens, control tokens included.
async fn detokenize(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let host = &service.host(fields.take::<String>("model")?.as_deref()).await?;
    let tokens: Vec<u32> = fields.required("tokens")?;
    fields.refuse_rest(&[])?;
    let n_vocab = host.tokenizer().n_vocab();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= n_vocab) {
        return Err(Error::field("tokens", format!("no token of {n_vocab} is number {token}")).into());
    }
    Ok(Json(json!({ "content": host.tokenizer().decode_with_control(&tokens) })))
}

/// The text that a conversation is to the model.
async fn apply_template(State(service): State<Service>, body: Bytes) -> Result<Json<Value>, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let host = &service.host(fields.take::<String>("model")?.as_deref()).await?;
    let messages = messages::read(fields.required("messages")?)?;
    let tools = fields.take("tools")?.unwrap_or_default();
    let variables = fields.take("chat_template_kwargs")?.unwrap_or_default();
    fields.refuse_rest(&HARMLESS)?;
    let calls = Calls::default();
    let conversation = Conversation { messages, tools, calls, continues: false, variables };
    let (host, prompt) = (Arc::clone(host), conversation);
    let prompt = in_background(move || prompt.render(&host)).await?;
    Ok(Json(json!({ "prompt": prompt })))
}

/// How a text goes on.
async fn complete(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let host = &service.host(fields.take::<String>("model")?.as_deref()).await?;
    let question = match fields.value("prompt").ok_or_else(|| Error::field("prompt", "it is missing"))? {
        Value::String(text) => Question::of_text(host, text).await?,
        tokens => Question::of_tokens(
            serde_json::from_value(tokens)
                .map_err(|_| Error::field("prompt", "it must be a text or an array of tokens"))?,
        ),
    };
    go_on(host, fields, question).await
}

/// What comes between two texts, by a model that was trained to say it.
async fn fill_in(State(service): State<Service>, body: Bytes) -> Result<Response, Failure> {
    let mut fields = Fields::of_body(body).await?;
    let host = &service.host(fields.take::<String>("model")?.as_deref()).await?;
    let before: String = fields.required("input_prefix")?;
    let after: String = fields.required("input_suffix")?;
    // What the gap begins with.
    let begun: String = fields.take("prompt")?.unwrap_or_default();
    if fields.value("input_extra").is_some_and(|files| files != json!([])) {
        let reason = "other files are not supported, and would change the answer";
        return Err(Error::field("input_extra", reason).into());
    }
    let marks = host.tokenizer().infill_tokens().ok_or(Error::NoInfill)?;
    let tokenizer = Arc::clone(host.tokenizer());
    let tokens = in_background(move || {
        let plain = EncodeOptions { add_bos: false, add_eos: false, parse_special: false };
        let mut tokens = tokenizer.encode("", EncodeOptions { add_bos: true, ..plain })?;
        tokens.push(marks.prefix);
        tokens.extend(tokenizer.encode(&(before + &begun), plain)?);
        tokens.push(marks.suffix);
        tokens.extend(tokenizer.encode(&after, plain)?);
        tokens.push(marks.middle);
        Ok(tokens)
    });
    go_on(host, fields, Question::of_tokens(tokens.await?)).await
}

/// What comes of a question whose other fields say how.
async fn go_on(host: &Arc<Host>, mut fields: Fields, mut question: Question) -> Result<Response, Failure> {
    // Less than nothing is as many as the context holds.
    let max_tokens = fields.count("n_predict")?;
    if max_tokens == Some(0) {
        return Err(Error::field("n_predict", "it must be at least 1").into());
    }
    fields.pass_defaults(&[("id_slot", json!(-1))]);
    let stop: Vec<String> = fields.texts("stop")?.into_iter().filter(|stop| !stop.is_empty()).collect();
    let ignore_eos = fields.take("ignore_eos")?.unwrap_or(false);
    let sampling = sampling(&mut fields, host.tokenizer().n_vocab())?;
    let streams = fields.take("stream")?.unwrap_or(false);
    let schema = fields.value("json_schema").map(Grammar::JsonSchema);
    let grammar = ask::grammar(&mut fields, schema)?;
    fields.refuse_rest(&HARMLESS)?;
    let request = &mut question.request;
    request.max_tokens = max_tokens;
    (request.sampling, request.stop, request.ignore_eos) = (sampling, stop, ignore_eos);
    request.form = ask::form(host, grammar).await?;
    let reply = question.ask(host).await?;
    if streams {
        return Ok(stream::server_sent(vec![reply], Pieces, heartbeat()));
    }
    let whole = reply.whole().await?;
    Ok(Json(end(&whole.said.content, whole.reason, &whole.stats)).into_response())
}

/// The last object of an answer, which says this and what it took.
fn end(content: &str, reason: FinishReason, stats: &Stats) -> Value {
    let kind = match reason {
        FinishReason::StopToken => "eos",
        FinishReason::StopString => "word",
        FinishReason::MaxTokens | FinishReason::ContextFull => "limit",
        FinishReason::Cancelled => "none",
    };
    json!({
        "content": content,
        "stop": true,
        "stop_type": kind,
        "truncated": reason == FinishReason::ContextFull,
        "tokens_evaluated": stats.n_prompt,
        "tokens_cached": stats.n_cached,
        "tokens_predicted": stats.n_generated,
        "timings": {
            "prompt_n": stats.n_read,
            "prompt_ms": 1e3 * stats.prefill.as_secs_f64(),
            "prompt_per_second": stats.prefill_rate(),
            "predicted_n": stats.n_generated,
            "predicted_ms": 1e3 * stats.decode.as_secs_f64(),
            "predicted_per_second": stats.decode_rate(),
            "draft_n": stats.n_guessed,
            "draft_n_accepted": stats.n_accepted,
        },
    })
}

/// An answer as it comes.
struct Pieces;

impl Writer for Pieces {
    type Item = Event;

    fn said(&mut self, _: usize, said: Said, events: &mut VecDeque<Event>) {
        let object = match said {
            Said::Part(Part::Content(text)) => json!({ "content": text, "stop": false }),
            Said::End { reason, stats, .. } => end("", reason, &stats),
            _ => return,
        };
        events.push_back(Event::default().data(object.to_string()));
    }

    fn ended(&mut self, _: &mut VecDeque<Event>) {}

    fn failed(&mut self, error: Error) -> Event {
        Event::default().data(Failure(error).body().to_string())
    }
}
