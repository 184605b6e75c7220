//! What a server does not take on.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use metallic_server::{Access, Limits};
use serde_json::{Value, json};

use crate::{N_CTX, events, limited, object, post, send, text};

fn asked(more: Value) -> Value {
    let mut body =
        json!({"messages": [{"role": "user", "content": "abc"}], "max_tokens": 200, "ignore_eos": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn chat(more: Value) -> Request<Body> {
    post("/v1/chat/completions", asked(more))
}

#[tokio::test]
async fn a_prompt_that_is_longer_than_the_server_takes_is_told_its_length() {
    let server = limited(1, Access::default(), Limits { prompt_tokens: Some(20), ..Limits::default() });
    let long = json!({"messages": [{"role": "user", "content": "a".repeat(100)}]});
    let error = object(send(&server, chat(long.clone())).await, StatusCode::BAD_REQUEST).await;
    let message = error["error"]["message"].as_str().unwrap();
    assert_eq!(error["error"]["code"], "context_length_exceeded");
    let n: usize = message.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((100..N_CTX).contains(&n) && message.contains(" 20"), "{message}");
    let anthropic = object(
        send(&server, post("/v1/messages", asked(json!({"ignore_eos": null, "messages": long["messages"]}))))
            .await,
        StatusCode::BAD_REQUEST,
    )
    .await;
    assert_eq!(anthropic["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn more_than_may_wait_are_told_to_come_back_in_each_vendors_form() {
    let server = limited(1, Access::default(), Limits { queue: 1, ..Limits::default() });
    // One is answered and one waits; that they are held shows that their clients have not gone.
    let busy = send(&server, chat(json!({"stream": true}))).await;
    let waiting = send(&server, chat(json!({"stream": true}))).await;
    for (path, body, status, place) in [
        ("/v1/chat/completions", asked(json!({})), 429, "/error/type"),
        ("/v1/messages", asked(json!({"ignore_eos": null})), 429, "/error/type"),
        ("/api/chat", json!({"messages": [{"role": "user", "content": "abc"}]}), 503, "/error"),
    ] {
        let response = send(&server, post(path, body)).await;
        assert_eq!(response.headers()["retry-after"], "1");
        let error = object(response, StatusCode::from_u16(status).unwrap()).await;
        let said = error.pointer(place).unwrap().as_str().unwrap();
        assert!(said == "rate_limit_error" || said.contains("try again"), "{error}");
    }
    // Several answers to one question as well.
    object(send(&server, chat(json!({"n": 3}))).await, StatusCode::TOO_MANY_REQUESTS).await;
    drop((busy, waiting));
    object(send(&server, chat(json!({"max_tokens": 1}))).await, StatusCode::OK).await;
}

#[tokio::test]
async fn who_waits_too_long_for_a_first_token_is_told() {
    let limits = Limits { first_token: Some(Duration::from_millis(100)), queue: 256, ..Limits::default() };
    let server = limited(1, Access::default(), limits);
    // Many answers are asked for, behind which others wait until they are given up.
    let busy = || send(&server, chat(json!({"n": 128, "stream": true})));
    let hold = busy().await;
    let response = send(&server, chat(json!({}))).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let error = object(response, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(error["error"]["type"], "server_error");
    drop(hold);

    let hold = busy().await;
    let streamed = text(send(&server, chat(json!({"stream": true}))).await).await;
    let [error] = events(&streamed)[..] else { panic!("{streamed}") };
    assert!(error.contains("no answer began within 0.1 seconds"), "{error}");
    drop(hold);

    let hold = busy().await;
    let streamed = post("/v1/messages", asked(json!({"stream": true, "ignore_eos": null})));
    let streamed = text(send(&server, streamed).await).await;
    assert!(streamed.starts_with("event: error\n") && streamed.contains("overloaded_error"), "{streamed}");
    drop(hold);

    let hold = busy().await;
    let chat = post("/api/chat", json!({"messages": [{"role": "user", "content": "abc"}]}));
    let lines = text(send(&server, chat).await).await;
    assert!(lines.starts_with(r#"{"error":"no answer began"#), "{lines}");
    drop(hold);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_ends_with_an_error() {
    let time = Duration::from_millis(300);
    let limits = Limits { request: Some(time), first_token: None, queue: 256, ..Limits::default() };
    let server = limited(1, Access::default(), limits);
    // Many answers, one after the other.
    let body = json!({"n": 120, "stream": true, "temperature": 2});
    let began = Instant::now();
    let streamed = text(send(&server, chat(body.clone())).await).await;
    let said = events(&streamed);
    let end: Value = serde_json::from_str(said.last().unwrap()).unwrap();
    assert!(end["error"]["message"].as_str().unwrap().contains("longer than"), "{end}");
    assert!(said.len() > 1, "it began: {streamed}");
    assert!(began.elapsed() < 10 * time, "{:?}", began.elapsed());
    let mut body = body;
    body["stream"] = json!(false);
    let response = send(&server, chat(body)).await;
    assert_eq!(response.headers()["x-should-retry"], "false");
    object(response, StatusCode::GATEWAY_TIMEOUT).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_the_vendors_form() {
    let server = limited(1, Access::default(), Limits { body_bytes: 100_000, ..Limits::default() });
    let large = asked(json!({"user": "a".repeat(100_000)}));
    for (path, place, kind) in [
        ("/v1/chat/completions", "/error/type", "request_too_large"),
        ("/v1/messages", "/error/type", "request_too_large"),
        ("/api/chat", "/error", "a body may have 100000 bytes"),
    ] {
        let error = object(send(&server, post(path, &large)).await, StatusCode::PAYLOAD_TOO_LARGE).await;
        assert_eq!(error.pointer(place), Some(&json!(kind)), "{error}");
    }
    // Nobody said how long it would be.
    let pieces = stream::repeat(Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'a'; 4096])));
    let request = Request::post("/v1/messages").body(Body::from_stream(pieces)).unwrap();
    object(send(&server, request).await, StatusCode::PAYLOAD_TOO_LARGE).await;
    // What has room is taken, in pieces too.
    let fits = asked(json!({"user": "a".repeat(90_000), "max_tokens": 1})).to_string();
    let pieces: Vec<_> = fits
        .as_bytes()
        .chunks(1000)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect();
    let request =
        Request::post("/v1/chat/completions").body(Body::from_stream(stream::iter(pieces))).unwrap();
    object(send(&server, request).await, StatusCode::OK).await;
}

#[tokio::test]
async fn a_body_of_very_many_values_is_refused_before_they_are_made() {
    let server = limited(1, Access::default(), Limits { body_bytes: 4 << 20, ..Limits::default() });
    let many = |value: &str| format!("[{}1]", format!("{value},").repeat((4 << 20) / 8 / (value.len() + 1)));
    for value in ["[]", "1", "{}", r#"{"a":1}"#] {
        let body = format!(r#"{{"messages": {}}}"#, many(value));
        let error =
            object(send(&server, post("/v1/chat/completions", body)).await, StatusCode::BAD_REQUEST).await;
        assert!(error["error"]["message"].as_str().unwrap().contains("values"), "{error}");
    }
    // In texts that are JSON as well, and in all of them together.
    let call = json!({"function": {"name": "f", "arguments": format!("[{}1]", "1,".repeat(70_000))}});
    let calls = |n: usize| json!([{"role": "assistant", "tool_calls": vec![&call; n]}, {"role": "user", "content": "a"}]);
    let response = send(&server, chat(json!({"messages": calls(1)}))).await;
    assert!(!text(response).await.contains("values"));
    let error =
        object(send(&server, chat(json!({"messages": calls(2)}))).await, StatusCode::BAD_REQUEST).await;
    assert_eq!(error["error"]["param"], "messages[0].tool_calls[1].function.arguments");
}

#[tokio::test]
async fn large_bodies_take_turns_and_all_are_answered() {
    let server = limited(2, Access::default(), Limits { body_bytes: 200_000, ..Limits::default() });
    let body = asked(json!({"user": "a".repeat(150_000), "max_tokens": 1}));
    let answers = stream::iter(0..20).map(|_| send(&server, chat(body.clone()))).buffer_unordered(20);
    let statuses: Vec<_> = answers.map(|response| response.status()).collect().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
}

#[tokio::test]
async fn the_memory_of_a_server_is_bounded_by_a_number() {
    let limits = Limits::default();
    assert!((300 << 20..500 << 20).contains(&limits.bytes()), "{}", limits.bytes());
    let small = Limits { connections: 8, body_bytes: 1 << 20, ..limits };
    assert!(small.bytes() < 100 << 20, "{}", small.bytes());
}

#[tokio::test]
async fn what_is_cut_is_an_error_and_no_request() {
    let server = limited(1, Access::default(), Limits::default());
    let pieces = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    let request = Request::post("/v1/messages").body(Body::from_stream(pieces)).unwrap();
    let response = send(&server, request).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let _ = response.into_body().collect().await;
}
