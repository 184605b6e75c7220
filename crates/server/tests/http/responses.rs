//! OpenAI's Responses API.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{events, expected, object, open_server, post, rendered, send, text};

fn response(more: Value) -> axum::http::Request<axum::body::Body> {
    let mut body = json!({"model": "tiny", "input": "abc", "temperature": 0, "max_output_tokens": 12});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post("/v1/responses", body)
}

#[tokio::test]
async fn an_answer_is_the_engines_own() {
    let server = open_server();
    let answer = expected(&rendered("abc"), 12);
    let items =
        json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "abc"}]}]);
    for more in [json!({}), json!({"input": items, "store": true, "metadata": {"a": "b"}, "user": "me"})] {
        let whole = object(send(&server, response(more)).await, StatusCode::OK).await;
        let [item] = &whole["output"].as_array().unwrap()[..] else { panic!("{whole}") };
        let content = json!([{"type": "output_text", "text": answer, "annotations": [], "logprobs": []}]);
        assert_eq!(
            (&item["type"], &item["role"], &item["content"]),
            (&"message".into(), &"assistant".into(), &content)
        );
        assert_eq!((&whole["object"], &whole["status"]), (&"response".into(), &"incomplete".into()));
        assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(whole["usage"]["output_tokens"], 12);
        let n_input = whole["usage"]["input_tokens"].as_u64().unwrap();
        assert_eq!(whole["usage"]["total_tokens"], n_input + 12);
    }
    let instructed = json!({"instructions": "Be brief."});
    let whole = object(send(&server, response(instructed)).await, StatusCode::OK).await;
    let text = format!("<|im_start|>system\nBe brief.<|im_end|>\n{}", rendered("abc"));
    assert_eq!(whole["output"][0]["content"][0]["text"], expected(&text, 12));
}

#[tokio::test]
async fn a_stream_tells_of_each_item_in_order() {
    let server = open_server();
    let stream = text(send(&server, response(json!({"stream": true}))).await).await;
    let names: Vec<&str> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let data: Vec<Value> = events(&stream).iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert!(
        data.iter().enumerate().all(|(i, data)| data["sequence_number"] == i && data["type"] == names[i])
    );
    let mut kinds = names.clone();
    kinds.dedup();
    let order = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ];
    assert_eq!(kinds, order);
    let answer = expected(&rendered("abc"), 12);
    assert_eq!(data.iter().filter_map(|data| data["delta"].as_str()).collect::<String>(), answer);
    let of = |kind: &str| data.iter().find(|data| data["type"] == kind).unwrap();
    assert_eq!(of("response.output_text.done")["text"], answer);
    let [begun, ended] = ["response.created", "response.incomplete"].map(|kind| &of(kind)["response"]);
    assert_eq!((&begun["id"], &begun["status"]), (&ended["id"], &"in_progress".into()));
    assert_eq!(ended["output"][0], of("response.output_item.done")["item"]);
}

#[tokio::test]
async fn an_answer_has_the_form_that_is_asked_for() {
    let server = open_server();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"], "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    let format = json!({"type": "json_schema", "name": "n", "strict": true, "schema": schema});
    let more = json!({"text": {"format": format, "verbosity": "low"}, "temperature": 1});
    let whole = object(send(&server, response(more)).await, StatusCode::OK).await;
    let text = whole["output"][0]["content"][0]["text"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text:?}"));
    assert!(value["n"].as_u64().is_some_and(|n| n < 10), "{value}");
    assert_eq!((&whole["status"], &whole["text"]["format"]["name"]), (&"completed".into(), &"n".into()));
}

#[tokio::test]
async fn what_would_need_a_memory_or_others_is_refused_by_name() {
    let server = open_server();
    for (more, param) in [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt"),
        (json!({"background": true}), "background"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"include": ["message.output_text.logprobs"]}), "include"),
        (json!({"text": {"format": {"type": "xml"}}}), "text.format.type"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"input": []}), "input"),
        (json!({"magic": 1}), "magic"),
    ] {
        let error = object(send(&server, response(more.clone())).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(error["error"]["param"], param, "{more}: {error}");
    }
    let harmless = json!({
        "background": false, "truncation": "disabled", "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"}, "parallel_tool_calls": true, "service_tier": "auto",
    });
    object(send(&server, response(harmless)).await, StatusCode::OK).await;
    let embed = post("/v1/embeddings", json!({"model": "tiny", "input": "abc"}));
    let error = object(send(&server, embed).await, StatusCode::BAD_REQUEST).await;
    assert_eq!(error["error"]["type"], "invalid_request_error");
    assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("embeddings")));
}
