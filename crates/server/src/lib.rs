//! Metallic over HTTP: models of this machine for the clients that people already use.
//!
//! A [`Service`] owns the models, each on a thread of its own; [`router`] is an axum router over it, for `metallic serve`
//! or for anyone's own program:
//!
//! ```no_run
//! # async fn serve(engine: metallic::Engine) -> std::io::Result<()> {
//! use metallic_server::{Access, Hosted, Service, router};
//!
//! let service = Service::new([Hosted::new("my-model", engine, None)]);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, router(service, Access::local())).await
//! # }
//! ```
#![forbid(unsafe_code)]

mod anthropic;
mod ask;
mod error;
mod fields;
mod guard;
mod host;
mod llama;
mod ollama;
mod openai;
mod page;
mod serve;
mod service;
mod stream;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::middleware;

pub use guard::Access;
pub use host::Hosted;
pub use serve::serve;
pub use service::Service;

/// Bytes of a request's body at most: a conversation that fills the longest contexts.
const MAX_BODY_BYTES: usize = 16 << 20;

/// What a [`router`] has and for whom; from an [`Access`] alone, everything.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may ask.
    pub access: Access,
    /// Whether browsers get a page at `/`.
    pub page: bool,
}

impl From<Access> for Options {
    fn from(access: Access) -> Self {
        Self { access, page: true }
    }
}

/// All endpoints over a service, for those who may ask.
pub fn router(service: Service, options: impl Into<Options>) -> Router {
    let Options { access, page } = options.into();
    let routes = Router::new()
        .merge(page::routes(page))
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(ollama::routes())
        .merge(llama::routes());
    let routes = routes
        .fallback(|uri: Uri| async move {
            guard::refuse(uri.path(), StatusCode::NOT_FOUND, "there is no such endpoint")
        })
        .method_not_allowed_fallback(|uri: Uri| async move {
            guard::refuse(uri.path(), StatusCode::METHOD_NOT_ALLOWED, "the endpoint has no such method")
        });
    let limit = DefaultBodyLimit::max(MAX_BODY_BYTES);
    routes.layer(limit).layer(middleware::from_fn_with_state(access, guard::check)).with_state(service)
}
