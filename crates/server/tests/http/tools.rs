//! Answers that have to call tools, over each API that can say so.

use axum::Router;
use axum::http::StatusCode;
use metallic::text::ChatTemplate;
use metallic_server::{Access, Hosted, Service, router};
use serde_json::{Value, json};

use crate::{engine, events, object, post, send, text};

/// As Hermes's models have it.
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% for t in tools %}{{ t.function.name }}{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# <tool_call></tool_call> #}";

fn tool_server() -> Router {
    let template = ChatTemplate::new(TEMPLATE).unwrap();
    router(Service::new([Hosted::new("tiny", engine(2), Some(template))]), Access::default())
}

/// Whose form has no room for what a model of random weights would write for long.
fn schema(key: &str) -> Value {
    json!({
        "type": "object",
        "properties": {key: {"enum": ["on", "off"]}},
        "required": [key],
        "additionalProperties": false,
        "x-guidance": {"whitespace_flexible": false},
    })
}

fn tools() -> Value {
    let tool = |name: &str, key: &str| json!({"type": "function", "function": {"name": name, "parameters": schema(key)}});
    json!([tool("f", "lamp"), tool("g", "fan")])
}

fn chat(more: &Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "abc"}],
        "tools": tools(), "tool_choice": "required", "parallel_tool_calls": false,
        "temperature": 0, "max_tokens": 180,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The name and arguments of the only call in the answer's tool calls.
fn called(calls: &Value) -> (String, Value) {
    let [call] = &calls.as_array().unwrap()[..] else { panic!("{calls}") };
    let function = &call["function"];
    let arguments = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    (function["name"].as_str().unwrap().to_owned(), arguments)
}

fn check(name: &str, arguments: &Value) {
    let key = match name {
        "f" => "lamp",
        "g" => "fan",
        _ => panic!("{name} is called"),
    };
    assert_eq!(arguments.as_object().unwrap().len(), 1, "{arguments}");
    assert!(["on", "off"].contains(&arguments[key].as_str().unwrap()), "{arguments}");
}

#[tokio::test]
async fn an_answer_calls_what_it_has_to_whole_and_in_pieces() {
    let server = tool_server();
    for (choice, name) in [
        (json!("required"), None),
        (json!({"type": "function", "function": {"name": "f"}}), Some("f")),
        (json!({"type": "function", "function": {"name": "g"}}), Some("g")),
    ] {
        let asked = chat(&json!({"tool_choice": choice}));
        let whole = object(send(&server, post("/v1/chat/completions", &asked)).await, StatusCode::OK).await;
        let choice = &whole["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
        let expected = called(&choice["message"]["tool_calls"]);
        check(&expected.0, &expected.1);
        assert!(name.is_none_or(|name| name == expected.0), "{expected:?}");

        let asked = chat(&json!({"tool_choice": asked["tool_choice"], "stream": true}));
        let stream = text(send(&server, post("/v1/chat/completions", &asked)).await).await;
        let chunks: Vec<Value> =
            events(&stream).iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
        let deltas: Vec<&Value> =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
        let (first, rest) = deltas.split_first().unwrap();
        assert!(first["id"].is_string() && first["type"] == "function", "{first}");
        assert_eq!(first["function"], json!({"name": expected.0, "arguments": ""}));
        assert!(rest.len() > 1 && rest.iter().all(|delta| delta["index"] == 0 && delta.get("id").is_none()));
        let json: String =
            rest.iter().map(|delta| delta["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected.1);
        assert!(chunks.iter().any(|chunk| chunk["choices"][0]["finish_reason"] == "tool_calls"));
    }
}

#[tokio::test]
async fn anthropics_choices_hold_too() {
    let server = tool_server();
    let tools: Vec<Value> = [("f", "lamp"), ("g", "fan")]
        .map(|(name, key)| json!({"name": name, "input_schema": schema(key), "strict": true}))
        .into();
    for (choice, name) in [(json!({"type": "any"}), None), (json!({"type": "tool", "name": "g"}), Some("g"))]
    {
        let mut choice = choice;
        choice["disable_parallel_tool_use"] = true.into();
        let mut asked = json!({
            "messages": [{"role": "user", "content": "abc"}],
            "tools": tools, "tool_choice": choice, "temperature": 0, "max_tokens": 180,
        });
        let whole = object(send(&server, post("/v1/messages", &asked)).await, StatusCode::OK).await;
        assert_eq!(whole["stop_reason"], "tool_use", "{whole}");
        let [block] = &whole["content"].as_array().unwrap()[..] else { panic!("{whole}") };
        assert_eq!(block["type"], "tool_use");
        check(block["name"].as_str().unwrap(), &block["input"]);
        assert!(name.is_none_or(|name| name == block["name"]), "{block}");

        asked["stream"] = true.into();
        let stream = text(send(&server, post("/v1/messages", &asked)).await).await;
        let data: Vec<Value> =
            events(&stream).iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let start = data.iter().find(|data| data["type"] == "content_block_start").unwrap();
        assert_eq!(
            (&start["content_block"]["name"], &start["content_block"]["input"]),
            (&block["name"], &json!({}))
        );
        let pieces: Vec<&str> =
            data.iter().filter_map(|data| data["delta"]["partial_json"].as_str()).collect();
        assert!(pieces.len() > 1);
        assert_eq!(serde_json::from_str::<Value>(&pieces.concat()).unwrap(), block["input"]);
        let stops = data.iter().filter(|data| data["type"] == "content_block_stop").count();
        assert_eq!(stops, 1);
    }
}

#[tokio::test]
async fn a_response_has_the_call_as_an_item_and_as_events() {
    let server = tool_server();
    let mut asked = json!({
        "input": "abc",
        "tools": [{"type": "function", "name": "f", "parameters": schema("lamp"), "strict": true}],
        "tool_choice": {"type": "function", "name": "f"},
        "temperature": 0, "max_output_tokens": 180,
    });
    let whole = object(send(&server, post("/v1/responses", &asked)).await, StatusCode::OK).await;
    assert_eq!(whole["status"], "completed");
    let [item] = &whole["output"].as_array().unwrap()[..] else { panic!("{whole}") };
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("f")));
    let arguments: Value = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
    check("f", &arguments);

    asked["stream"] = true.into();
    let stream = text(send(&server, post("/v1/responses", &asked)).await).await;
    let data: Vec<Value> = events(&stream).iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let mut kinds: Vec<&str> = data.iter().map(|data| data["type"].as_str().unwrap()).collect();
    kinds.dedup();
    let order = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds, order);
    let json: String = data.iter().filter_map(|data| data["delta"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), arguments);
    let end = &data.last().unwrap()["response"]["output"][0];
    assert_eq!((&end["arguments"], &end["status"]), (&json.into(), &"completed".into()));
}

#[tokio::test]
async fn what_can_not_be_called_is_refused_by_name() {
    let server = tool_server();
    let odd = json!([{"type": "function", "function": {"name": "a b"}}]);
    for (more, param) in [
        (json!({"tool_choice": {"type": "function", "function": {"name": "h"}}}), "tool_choice"),
        (json!({"tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tools": []}), "tool_choice"),
        (json!({"tools": odd}), "tools"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
    ] {
        let asked = post("/v1/chat/completions", chat(&more));
        let error = object(send(&server, asked).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(error["error"]["param"], param, "{more}: {error}");
    }
}
