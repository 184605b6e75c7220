//! Anthropic's API.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{expected, object, open_server, post, rendered, send, text};

fn message(more: Value) -> axum::http::Request<axum::body::Body> {
    let mut body = json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "abc"}]}],
        "temperature": 0,
        "max_tokens": 12,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post("/v1/messages", body)
}

#[tokio::test]
async fn an_answer_is_the_engines_own_whole_and_in_events() {
    let server = open_server();
    let answer = expected(&rendered("abc"), 12);
    let whole = object(send(&server, message(json!({}))).await, StatusCode::OK).await;
    assert_eq!(whole["content"], json!([{"type": "text", "text": answer}]));
    assert_eq!((&whole["type"], &whole["role"]), (&"message".into(), &"assistant".into()));
    assert_eq!((&whole["stop_reason"], &whole["usage"]["output_tokens"]), (&"max_tokens".into(), &12.into()));

    let events = text(send(&server, message(json!({"stream": true}))).await).await;
    let events: Vec<(&str, Value)> = events
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (name.strip_prefix("event: ").unwrap(), data)
        })
        .collect();
    assert!(events.iter().all(|(name, data)| data["type"] == *name));
    let mut names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    names.dedup();
    let order = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, order);
    let pieces = events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str());
    assert_eq!(pieces.collect::<String>(), answer);
    let end = &events[events.len() - 2].1;
    assert_eq!(
        (&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]),
        (&"max_tokens".into(), &12.into())
    );
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_read() {
    let server = open_server();
    let messages = json!({"messages": [{"role": "user", "content": "abc"}], "system": "Be brief."});
    let counted =
        object(send(&server, post("/v1/messages/count_tokens", &messages)).await, StatusCode::OK).await;
    let mut asked = messages;
    asked.as_object_mut().unwrap().insert("max_tokens".to_owned(), 1.into());
    let whole = object(send(&server, post("/v1/messages", asked)).await, StatusCode::OK).await;
    let [read, cached] =
        ["input_tokens", "cache_read_input_tokens"].map(|key| whole["usage"][key].as_u64().unwrap());
    assert_eq!(counted["input_tokens"], read + cached);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_anthropics_form() {
    let server = open_server();
    for (more, status, kind) in [
        (json!({"model": "claude"}), 404, "not_found_error"),
        (json!({"max_tokens": null}), 400, "invalid_request_error"),
        (json!({"magic": 1}), 400, "invalid_request_error"),
        (json!({"stop_sequences": [""]}), 400, "invalid_request_error"),
        (json!({"tool_choice": {"type": "any"}}), 400, "invalid_request_error"),
        (json!({"context_management": {"edits": [{"type": "forget"}]}}), 400, "invalid_request_error"),
        (json!({"output_config": {"format": {"type": "xml"}}}), 400, "invalid_request_error"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = object(send(&server, message(more.clone())).await, status).await;
        assert_eq!((&error["type"], &error["error"]["type"]), (&"error".into(), &kind.into()), "{more}");
    }
    let edits = json!({"edits": [{"type": "clear_tool_uses_20250919"}]});
    let harmless = json!({"metadata": {"user_id": "me"}, "thinking": {"type": "disabled"},
        "context_management": edits, "output_config": {"effort": "low"}});
    object(send(&server, message(harmless)).await, StatusCode::OK).await;
}

#[tokio::test]
async fn an_answer_that_has_begun_is_gone_on_with() {
    let server = open_server();
    let begun = json!({"messages": [
        {"role": "user", "content": "abc"},
        {"role": "assistant", "content": "The answer is"},
    ]});
    let whole = object(send(&server, message(begun)).await, StatusCode::OK).await;
    let text = format!("{}The answer is", rendered("abc"));
    assert_eq!(whole["content"][0]["text"], expected(&text, 12));
}

#[tokio::test]
async fn an_answer_has_the_form_that_is_asked_for() {
    let server = open_server();
    let schema = json!({"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    let format = json!({"type": "json_schema", "schema": schema});
    let more = json!({"output_config": {"format": format}});
    let whole = object(send(&server, message(more)).await, StatusCode::OK).await;
    let value: Value = serde_json::from_str(whole["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(value["on"].is_boolean(), "{whole}");
}
