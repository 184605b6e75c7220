//! What the fuzz target does with its bytes: it sends them to an endpoint of a server with a tiny model. The crate's tests
//! include this file, replay the seeds and make bodies of their own, so ordinary `cargo test` covers it.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use metallic::text::{ChatTemplate, Tokenizer};
use metallic::{Engine, GgufFile, GgufLoader, testing};
use metallic_server::{Access, Hosted, Limits, Options, Service, router};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// Endpoints that read a body; a seed's first byte says which one it is for.
pub const ENDPOINTS: [&str; 10] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/chat",
    "/api/generate",
    "/api/show",
    "/completion",
    "/tokenize",
    "/apply-template",
];

/// A server of a tiny model.
pub struct Server {
    router: Router,
    runtime: Runtime,
}

impl Server {
    /// With a context so short that no answer takes long.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tiny.gguf");
        std::fs::write(&path, testing::tiny_model().expect("a model")).expect("a file");
        let file = GgufFile::open(&path).expect("a model's file");
        let tokenizer = Tokenizer::from_gguf(&file.gguf()).expect("a tokenizer");
        let loader = GgufLoader::new(file).threads(1).context_length(64).sequences(2).batch(64);
        let engine = Engine::new(loader.load().expect("it loads"), tokenizer);
        let template = ChatTemplate::built_in("chatml");
        let service = Service::new([Hosted::new("tiny", engine, template)]);
        let router = router(
            service,
            Options {
                limits: Limits { body_bytes: 1 << 20, ..Limits::default() },
                ..Options::from(Access::default())
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { router, runtime }
    }

    /// Asks the endpoint that the first byte stands for.
    pub fn ask_any(&self, data: &[u8]) {
        let Some((first, body)) = data.split_first() else { return };
        self.ask(ENDPOINTS[usize::from(*first) % ENDPOINTS.len()], body);
    }

    /// Whatever it is sent, it is answered or refused, in JSON, events or lines: it is never a failure of ours.
    pub fn ask(&self, path: &str, body: &[u8]) -> StatusCode {
        self.runtime.block_on(async {
            let request = Request::post(path).body(Body::from(body.to_vec())).expect("a request");
            let response = self.router.clone().oneshot(request).await.expect("it can't fail");
            let (status, is_json) = (
                response.status(),
                response.headers().get("content-type").is_some_and(|kind| kind == "application/json"),
            );
            let said = response.into_body().collect().await.expect("an answer that ends").to_bytes();
            assert!(status == StatusCode::OK || status.is_client_error(), "{path}: {status} {said:?}");
            assert!(status == StatusCode::OK || is_json, "{path}: {status} is no JSON");
            if is_json {
                serde_json::from_slice::<serde_json::Value>(&said).expect("JSON");
            }
            // Where a request is quoted, its quotation marks are escaped.
            let failures = [&b"\"server_error\""[..], b"\"api_error\"", b":\"the model has stopped"];
            let fails = |failure: &[u8]| said.windows(failure.len()).any(|bytes| bytes == failure);
            assert!(!failures.iter().any(|failure| fails(failure)), "{path}: {said:?}");
            status
        })
    }
}
