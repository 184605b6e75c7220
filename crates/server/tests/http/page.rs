//! The page for browsers.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use metallic::text::ChatTemplate;
use metallic_server::{Access, Hosted, Options, Service, router};

use crate::{engine, open_server, send, server, text};

/// What Chromium says that it takes.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::get(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn browsers_get_the_page_and_ollama_its_greeting() {
    let server = open_server();
    let page = send(&server, get("/", &[("accept", BROWSER)])).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["vary"], "accept");
    assert!(text(page).await.starts_with("<!doctype html>"));
    for accept in [&[][..], &[("accept", "*/*")], &[("accept", "application/json")]] {
        let greeting = send(&server, get("/", accept)).await;
        assert_eq!(greeting.headers()["vary"], "accept");
        assert_eq!(text(greeting).await, "Metallic is running", "{accept:?}");
    }
    let mut head = get("/", &[]);
    *head.method_mut() = Method::HEAD;
    assert_eq!(send(&server, head).await.status(), StatusCode::OK);
}

/// What the page's document names is served, as what it is, and by names that a proxy may put behind a prefix.
#[tokio::test]
async fn all_that_the_page_asks_for_is_there() {
    let server = open_server();
    let page = text(send(&server, get("/", &[("accept", "text/html")])).await).await;
    let named = ["src=\"", "href=\""].into_iter().flat_map(|name| page.split(name).skip(1));
    let named: Vec<_> = named.map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(named.len(), 3, "{named:?}");
    for name in named {
        assert!(!name.contains("//") && !name.starts_with('/'), "{name} is elsewhere");
        let file = send(&server, get(&format!("/{name}"), &[])).await;
        assert_eq!(file.status(), StatusCode::OK, "{name}");
        let kind = match name.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        };
        assert_eq!(file.headers()["content-type"], kind, "{name}");
        assert_eq!(file.headers()["x-content-type-options"], "nosniff", "{name}");
        let policy = file.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    }
    for unsafe_ in ["<style", "<script>", " style=", " onclick="] {
        assert!(!page.contains(unsafe_), "the page has {unsafe_}, which its policy forbids");
    }
}

#[tokio::test]
async fn what_a_browser_has_is_not_sent_again() {
    let server = open_server();
    let first = send(&server, get("/app.js", &[])).await;
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
        let again = send(&server, get("/app.js", &[("if-none-match", &known)])).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(again.headers()["etag"], tag.as_str());
        assert_eq!(text(again).await, "");
    }
    let other = send(&server, get("/app.css", &[("if-none-match", &tag)])).await;
    assert_eq!(other.status(), StatusCode::OK);
}

/// The page asks for the key itself; of others, names are checked all the same.
#[tokio::test]
async fn the_page_needs_no_key() {
    let server = server(1, Access { keys: vec!["key".to_owned()], ..Access::local() });
    for (path, host, status) in [
        ("/", "localhost", StatusCode::OK),
        ("/app.js", "localhost", StatusCode::OK),
        ("/app.js", "evil.example", StatusCode::FORBIDDEN),
        ("/v1/models", "localhost", StatusCode::UNAUTHORIZED),
    ] {
        let response = send(&server, get(path, &[("accept", "text/html"), ("host", host)])).await;
        assert_eq!(response.status(), status, "{path} of {host}");
    }
}

#[tokio::test]
async fn a_server_can_be_without_it() {
    let service = Service::new([Hosted::new("tiny", engine(1), ChatTemplate::built_in("chatml"))]);
    let server: Router = router(service, Options { page: false, ..Options::from(Access::default()) });
    let greeting = send(&server, get("/", &[("accept", BROWSER)])).await;
    assert_eq!(text(greeting).await, "Metallic is running");
    assert_eq!(send(&server, get("/app.js", &[])).await.status(), StatusCode::NOT_FOUND);
}
