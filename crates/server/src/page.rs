//! The page at `/`: a chat, the models and where memory goes, in a browser. Its files are made ahead of time from the
//! sources in `web/` and are part of the program, so that neither a build nor a visit needs anything from elsewhere.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::service::Service;

/// A file of the page.
#[derive(Clone, Copy)]
struct File {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// What browsers get at `/`.
const INDEX: File = File {
    path: "/",
    content_type: "text/html; charset=utf-8",
    body: include_str!("../web/dist/index.html"),
};

/// What it asks for.
const FILES: [File; 4] = [
    File {
        path: "/app.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_str!("../web/dist/app.js"),
    },
    File {
        path: "/app.css",
        content_type: "text/css; charset=utf-8",
        body: include_str!("../web/dist/app.css"),
    },
    File { path: "/icon.svg", content_type: "image/svg+xml", body: include_str!("../web/dist/icon.svg") },
    File {
        path: "/licenses.txt",
        content_type: "text/plain; charset=utf-8",
        body: include_str!("../web/dist/licenses.txt"),
    },
];

/// What Ollama's clients look for at `/`, and who else is no browser.
const RUNNING: &str = "Metallic is running";

/// With every file. An answer of a model is shown to somebody whose browser may reach more than the model: whatever it
/// says, nothing is loaded from or sent to elsewhere, no text becomes a script, and no other page has this one in a frame.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types dompurify",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    // A newer server has a newer page.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

/// What is at `/`, and the page's files if there is one.
pub(crate) fn routes(has_page: bool) -> Router<Service> {
    if !has_page {
        return Router::new().route("/", get(|| async { RUNNING }));
    }
    let index = Served::new(INDEX);
    let greet = |headers: HeaderMap| async move {
        let mut response =
            if takes_html(&headers) { index.respond(&headers) } else { RUNNING.into_response() };
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
        response
    };
    FILES.into_iter().map(Served::new).fold(Router::new().route("/", get(greet)), |router, served| {
        router.route(served.file.path, get(move |headers: HeaderMap| async move { served.respond(&headers) }))
    })
}

/// Whether this is one of the page's files, which tell nothing of the models: they need no key, so that there is a page
/// that can ask for it.
pub(crate) fn is_file(path: &str) -> bool {
    path == INDEX.path || FILES.iter().any(|file| file.path == path)
}

/// Browsers say so; other programs take anything.
fn takes_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        let name = kind.split(';').next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("text/html")
    })
}

/// A file with what a browser is told to know it again by.
#[derive(Clone)]
struct Served {
    file: File,
    tag: HeaderValue,
}

impl Served {
    fn new(file: File) -> Self {
        let mut hasher = DefaultHasher::new();
        file.body.hash(&mut hasher);
        let tag = format!("\"{:016x}\"", hasher.finish());
        Self { file, tag: HeaderValue::try_from(tag).expect("hexadecimal digits in quotes") }
    }

    /// The file, or that it is what the browser has.
    fn respond(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let is_known = known.flat_map(|value| value.split(',')).any(|tag| {
            // A proxy that compresses makes a tag a weak one.
            let tag = tag.trim();
            tag.strip_prefix("W/").unwrap_or(tag) == self.tag
        });
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.file.content_type)], self.file.body).into_response()
        };
        response.headers_mut().extend(HEADERS);
        response.headers_mut().insert(header::ETAG, self.tag.clone());
        response
    }
}
