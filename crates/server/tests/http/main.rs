//! What clients get, over the router and a tiny model, without a network.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

mod access;
mod anthropic;
mod limits;
mod llama;
mod models;
mod ollama;
mod openai;
mod page;
mod random;
mod responses;
mod tools;

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use metallic::sampling::SamplingParams;
use metallic::text::{ChatTemplate, EncodeOptions, Tokenizer};
use metallic::{Engine, Event, GgufFile, GgufLoader, testing};
use metallic_server::{Access, Hosted, Limits, Options, Service, router};
use serde_json::Value;
use tower::ServiceExt;

const N_CTX: usize = 256;

fn engine(n_sequences: usize) -> Engine {
    let folder = tempfile::tempdir().unwrap();
    engine_in(&folder.path().join("tiny.gguf"), n_sequences)
}

/// With its model in this file.
fn engine_in(path: &Path, n_sequences: usize) -> Engine {
    std::fs::write(path, testing::tiny_model().unwrap()).unwrap();
    let file = GgufFile::open(path).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file.gguf()).unwrap();
    let loader = GgufLoader::new(file).threads(1).context_length(N_CTX).sequences(n_sequences).batch(64);
    Engine::new(loader.load().unwrap(), tokenizer)
}

/// A server of the model `tiny`, which answers so many at a time.
fn server(n_sequences: usize, access: Access) -> Router {
    limited(n_sequences, access, Limits::default())
}

fn limited(n_sequences: usize, access: Access, limits: Limits) -> Router {
    let template = ChatTemplate::built_in("chatml");
    router(
        Service::new([Hosted::new("tiny", engine(n_sequences), template)]),
        Options { limits, ..Options::from(access) },
    )
}

fn open_server() -> Router {
    server(2, Access::default())
}

/// The text that the template of the tests makes of a question.
fn rendered(question: &str) -> String {
    format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
}

/// What an engine of its own goes on with after a text, always taking the likeliest token.
fn expected(text: &str, max_tokens: usize) -> String {
    let mut engine = engine(1);
    let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
    let prompt = engine.tokenizer().encode(text, options).unwrap();
    let request = metallic::Request {
        sampling: SamplingParams::greedy(),
        max_tokens: Some(max_tokens),
        ..metallic::Request::new(prompt)
    };
    let mut answer = String::new();
    let events = |event| {
        if let Event::Text { text, .. } = event {
            answer.push_str(&text);
        }
    };
    engine.generate(request, events).unwrap();
    answer
}

async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

fn post(path: &str, body: impl ToString) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The object of a response with this status.
async fn object(response: Response<Body>, status: StatusCode) -> Value {
    let found = response.status();
    let text = text(response).await;
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The data of a stream's events.
fn events(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
}
