//! Who may ask.

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use metallic_server::Access;

use crate::{object, send, server, text};

fn request(headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::get("/v1/models");
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_key_is_asked_for_where_there_are_some() {
    let keys = vec!["first".to_owned(), "second".to_owned()];
    let server = server(1, Access { keys, ..Access::default() });
    for (headers, status) in [
        (&[][..], StatusCode::UNAUTHORIZED),
        (&[("authorization", "Bearer third")], StatusCode::UNAUTHORIZED),
        (&[("authorization", "Bearer firs")], StatusCode::UNAUTHORIZED),
        (&[("authorization", "first")], StatusCode::UNAUTHORIZED),
        (&[("authorization", "bearer first")], StatusCode::OK),
        (&[("authorization", "Bearer other"), ("x-api-key", "second")], StatusCode::OK),
        (&[("x-api-key", "")], StatusCode::UNAUTHORIZED),
        (&[("authorization", "Bearer first")], StatusCode::OK),
        (&[("x-api-key", "second")], StatusCode::OK),
    ] {
        object(send(&server, request(headers)).await, status).await;
    }
    // So that who watches over it needs none.
    let health = Request::get("/health").body(Body::empty()).unwrap();
    object(send(&server, health).await, StatusCode::OK).await;
}

/// A page elsewhere, whether it asks by this machine's name or has its own name lead here.
#[tokio::test]
async fn pages_elsewhere_reach_no_local_server() {
    let server = server(1, Access::local());
    for (headers, status) in [
        (&[("host", "localhost:8080")][..], StatusCode::OK),
        (&[("host", "127.0.0.1:8080")], StatusCode::OK),
        (&[("host", "[::1]:8080")], StatusCode::OK),
        (&[("host", "LocalHost")], StatusCode::OK),
        (&[("host", "localhost:8080"), ("origin", "http://localhost:8080")], StatusCode::OK),
        (&[("host", "evil.example")], StatusCode::FORBIDDEN),
        (&[("host", "localhost.evil.example:8080")], StatusCode::FORBIDDEN),
        (&[], StatusCode::FORBIDDEN),
        (&[("host", "localhost:8080"), ("origin", "https://evil.example")], StatusCode::FORBIDDEN),
        (&[("host", "localhost:8080"), ("origin", "http://localhost:8081")], StatusCode::FORBIDDEN),
        (&[("host", "localhost:8080"), ("origin", "null")], StatusCode::FORBIDDEN),
    ] {
        assert_eq!(send(&server, request(headers)).await.status(), status, "{headers:?}");
    }
}

#[tokio::test]
async fn a_page_that_is_allowed_may_read_answers() {
    let origins = vec!["https://chat.example".to_owned()];
    let server = server(1, Access { origins, keys: vec!["key".to_owned()], ..Access::local() });
    let from = [("host", "localhost"), ("origin", "https://chat.example")];
    let asked = ("access-control-request-headers", "x-stainless-os, authorization");
    let mut preflight = request(&[&from[..], &[asked]].concat());
    *preflight.method_mut() = Method::OPTIONS;
    let response = send(&server, preflight).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://chat.example");
    assert!(response.headers()["access-control-allow-headers"].to_str().unwrap().contains("x-stainless-os"));
    let response = send(&server, request(&from)).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "https://chat.example");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{}", text(response).await);
}

/// Tokens of a prompt that were cached, as an answer to this key says.
async fn cached(server: &Router, key: &str) -> u64 {
    let messages =
        serde_json::json!([{ "role": "user", "content": "A question that is long enough. ".repeat(4) }]);
    let body = serde_json::json!({ "messages": messages, "max_tokens": 1, "temperature": 1 });
    let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {key}"));
    let response = send(server, request.body(Body::from(body.to_string())).unwrap()).await;
    object(response, StatusCode::OK).await["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn keys_share_what_was_read_unless_they_are_separate() {
    for separate_keys in [false, true] {
        let keys = vec!["one".to_owned(), "two".to_owned()];
        let server = server(2, Access { keys, separate_keys, ..Access::default() });
        assert_eq!(cached(&server, "one").await, 0);
        assert!(cached(&server, "one").await > 100);
        assert_eq!(cached(&server, "two").await > 0, !separate_keys);
        assert!(cached(&server, "two").await > 100);
    }
}
