//! Metallic over HTTP: models of this machine for the clients that people already use.
//!
//! A [`Service`] owns the models, each on a thread of its own; [`router`] is an axum router over it, for `metallic serve`
//! or for anyone's own program:
//!
//! ```no_run
//! # async fn serve(engine: metallic::Engine) -> std::io::Result<()> {
//! use metallic_server::{Access, Hosted, Limits, Service, router};
//!
//! let service = Service::new([Hosted::new("my-model", engine, None)]);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, router(service, Access::local())).await
//! # }
//! ```
#![forbid(unsafe_code)]

mod anthropic;
mod ask;
mod asked;
mod batch;
mod body;
mod connection;
mod ending;
mod error;
mod fields;
mod guard;
mod host;
mod library;
mod limits;
mod llama;
mod manage;
mod metrics;
mod ollama;
mod openai;
mod page;
mod serve;
mod service;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::middleware;

use crate::asked::Shared;
pub use batch::{Question, Response, answer_all};
pub use guard::Access;
pub use host::Hosted;
pub use library::{
    Description, Device, Kind, Library, Listed, Outline, Predicted, Progress, Refused, Thing, Wish,
};
pub use limits::Limits;
pub use serve::serve;
pub use service::{Service, Terms};

/// What a [`router`] has and for whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may ask.
    pub access: Access,
    /// What requests may take.
    pub limits: Limits,
    /// Whether browsers get a page at `/`.
    pub page: bool,
}

impl From<Access> for Options {
    /// Everything, within the usual limits.
    fn from(access: Access) -> Self {
        Self { access, limits: Limits::default(), page: true }
    }
}

/// All endpoints over a service, for those who may ask. Of the limits, those of requests hold here, and those of connections where
/// they are [served](serve()).
pub fn router(service: Service, options: impl Into<Options>) -> Router {
    let Options { access, limits, page } = options.into();
    let shared = Arc::new(Shared::new(limits));
    let routes = Router::new()
        .merge(page::routes(page))
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(ollama::routes())
        .merge(llama::routes())
        .merge(manage::routes());
    let routes = routes
        .fallback(|uri: Uri| async move {
            guard::refuse(uri.path(), StatusCode::NOT_FOUND, "there is no such endpoint")
        })
        .method_not_allowed_fallback(|uri: Uri| async move {
            guard::refuse(uri.path(), StatusCode::METHOD_NOT_ALLOWED, "the endpoint has no such method")
        });
    // Outermost last: each request has its line in the log, and the body of one that may not ask is not read.
    routes
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), body::receive))
        .layer(middleware::from_fn_with_state(access, guard::check))
        .layer(middleware::from_fn_with_state(shared, asked::follow))
        .with_state(service)
}
