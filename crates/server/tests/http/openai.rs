//! OpenAI's API.

use std::io::Write as _;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures_util::StreamExt;
use metallic::text::ChatTemplate;
use metallic_server::{Access, Hosted, Service, router};
use serde_json::{Value, json};

use crate::{N_CTX, engine_in, events, expected, object, open_server, post, rendered, send, server, text};

fn chat(more: Value) -> Request<Body> {
    let mut body = json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "abc"}],
        "temperature": 0,
        "max_tokens": 12,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post("/v1/chat/completions", body)
}

#[tokio::test]
async fn an_answer_is_the_engines_own() {
    let server = open_server();
    let answer = object(send(&server, chat(json!({}))).await, StatusCode::OK).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], expected(&rendered("abc"), 12));
    assert_eq!(
        (&choice["message"]["role"], &choice["finish_reason"]),
        (&"assistant".into(), &"length".into())
    );
    assert_eq!((&answer["object"], &answer["model"]), (&"chat.completion".into(), &"tiny".into()));
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 12);
    let sum = usage["prompt_tokens"].as_u64().unwrap() + 12;
    assert_eq!(usage["total_tokens"], sum);

    let text = post("/v1/completions", json!({"prompt": "abc", "temperature": 0, "max_tokens": 12}));
    let answer = object(send(&server, text).await, StatusCode::OK).await;
    assert_eq!(answer["choices"][0]["text"], expected("abc", 12));
}

#[tokio::test]
async fn a_stream_is_the_same_answer_in_pieces() {
    let server = open_server();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 2});
    let response = send(&server, chat(more)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = text(response).await;
    let events = events(&text);
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> = chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &12.into()));
    assert!(
        chunks.iter().all(|chunk| chunk["id"] == usage["id"] && chunk["object"] == "chat.completion.chunk")
    );
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null()));
    let deltas: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    assert!(deltas.iter().enumerate().all(|(i, delta)| delta.get("role").is_some() == (i == 0)));
    let content: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(content, expected(&rendered("abc"), 12));
    let reasons: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert!(reasons.iter().enumerate().all(|(i, reason)| reason.is_null() == (i + 1 < reasons.len())));
    assert_eq!(reasons[reasons.len() - 1], "length");
    let logprobs: Vec<&Value> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .collect();
    assert_eq!(logprobs.len(), 12, "each token once");
    assert!(logprobs.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));
}

#[tokio::test]
async fn several_answers_draw_numbers_of_their_own_and_a_seed_gives_them_again() {
    let server = open_server();
    let asked = || chat(json!({"n": 3, "seed": 7, "temperature": 1.5}));
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        assert!(choices.iter().enumerate().all(|(i, choice)| choice["index"] == i));
        choices.iter().map(|choice| choice["message"]["content"].to_string()).collect()
    };
    let first = texts(&object(send(&server, asked()).await, StatusCode::OK).await);
    assert!(first.len() == 3 && first[0] != first[1] && first[1] != first[2], "{first:?}");
    assert_eq!(texts(&object(send(&server, asked()).await, StatusCode::OK).await), first);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_openais_form_and_names_the_field() {
    let server = open_server();
    let long = "a".repeat(N_CTX);
    for (more, status, param, code) in [
        (json!({"model": "gpt-4"}), 404, Some("model"), Some("model_not_found")),
        (json!({"magic": true}), 400, Some("magic"), None),
        (json!({"temperature": "hot"}), 400, Some("temperature"), None),
        (json!({"temperature": -1}), 400, Some("temperature"), None),
        (json!({"top_p": 2}), 400, Some("top_p"), None),
        (json!({"n": 0}), 400, Some("n"), None),
        (json!({"max_tokens": 0}), 400, Some("max_tokens"), None),
        (json!({"max_tokens": 1.5}), 400, Some("max_tokens"), None),
        (json!({"chat_template_kwargs": {"messages": []}}), 400, Some("chat_template_kwargs.messages"), None),
        (json!({"stop": [1]}), 400, Some("stop"), None),
        (json!({"messages": []}), 400, Some("messages"), None),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            400,
            Some("messages[0].content[0].type"),
            None,
        ),
        (json!({"logit_bias": {"999999": 1}}), 400, Some("logit_bias.999999"), None),
        (json!({"top_logprobs": 2}), 400, Some("top_logprobs"), None),
        (json!({"response_format": {"type": "xml"}}), 400, Some("response_format.type"), None),
        (json!({"response_format": {"type": "json_schema"}}), 400, Some("response_format.json_schema"), None),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "shape"}}}}),
            400,
            None,
            None,
        ),
        (json!({"tool_choice": "required"}), 400, Some("tool_choice"), None),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), 400, Some("tools"), None),
        (
            json!({"messages": [{"role": "user", "content": long}]}),
            400,
            None,
            Some("context_length_exceeded"),
        ),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = &object(send(&server, chat(more.clone())).await, status).await["error"];
        assert_eq!((error["param"].as_str(), error["code"].as_str()), (param, code), "{more}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{error}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    let missing = send(&server, post("/v1/no/such", "{}")).await;
    assert_eq!(object(missing, StatusCode::NOT_FOUND).await["error"]["type"], "not_found_error");
    let wrong = Request::get("/v1/chat/completions").body(Body::empty()).unwrap();
    object(send(&server, wrong).await, StatusCode::METHOD_NOT_ALLOWED).await;
    // These say what holds anyway, as clients do.
    for more in [
        json!({"max_tokens": -1, "ignore_eos": false, "stop": "T"}),
        json!({"max_tokens": 2.0, "seed": -1, "top_k": -1, "repeat_last_n": -1}),
        json!({"parallel_tool_calls": false, "tool_choice": "auto", "functions": []}),
        json!({"mirostat": 0, "repetition_penalty": 1.0, "dry_multiplier": 0.0, "timings_per_token": true}),
    ] {
        object(send(&server, chat(more)).await, StatusCode::OK).await;
    }
    // These change nothing.
    let harmless =
        json!({"user": "me", "store": false, "metadata": {"a": "b"}, "tool_choice": "none", "seed": null});
    object(send(&server, chat(harmless)).await, StatusCode::OK).await;
    for body in ["", "[]", "{", "\u{0}"] {
        let error =
            object(send(&server, post("/v1/chat/completions", body)).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn an_answer_has_the_form_that_is_asked_for() {
    let server = open_server();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"], "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": schema}});
    let more = json!({"response_format": format, "temperature": 1, "seed": 3});
    let answer = object(send(&server, chat(more)).await, StatusCode::OK).await;
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(content).unwrap_or_else(|_| panic!("{content:?}"));
    assert!(value["n"].as_u64().is_some_and(|n| n < 10), "{value}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let server = open_server();
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let list = object(send(&server, get("/v1/models")).await, StatusCode::OK).await;
    assert_eq!((&list["data"][0]["id"], &list["data"][0]["context_length"]), (&"tiny".into(), &N_CTX.into()));
    let one = object(send(&server, get("/v1/models/tiny")).await, StatusCode::OK).await;
    assert_eq!(one, list["data"][0]);
    object(send(&server, get("/v1/models/other")).await, StatusCode::NOT_FOUND).await;
}

/// The only sequence there is becomes free when the client that has it goes.
#[tokio::test]
async fn an_answer_that_nobody_hears_ends() {
    let server = server(1, Access::default());
    let endless = json!({"max_tokens": 200, "stream": true, "ignore_eos": true});
    let mut body = send(&server, chat(endless)).await.into_body().into_data_stream();
    assert!(body.next().await.unwrap().unwrap().starts_with(b"data: "));
    let began = Instant::now();
    drop(body);
    let answer = object(send(&server, chat(json!({}))).await, StatusCode::OK).await;
    assert_eq!(answer["choices"][0]["message"]["content"], expected(&rendered("abc"), 12));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A file that changes ends all answers, also where the server hears of it because a client goes.
#[tokio::test]
async fn nobody_waits_for_a_model_that_can_not_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let engine = engine_in(&path, 3);
    let template = ChatTemplate::built_in("chatml");
    let server = router(Service::new([Hosted::new("tiny", engine, template)]), Access::default());
    let endless = || chat(json!({"max_tokens": 230, "stream": true, "ignore_eos": true}));
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let mut body = send(&server, endless()).await.into_body().into_data_stream();
        body.next().await.unwrap().unwrap();
        bodies.push(body);
    }
    // The same bytes in their place: who reads a map that is cut short gets a signal.
    let bytes = std::fs::read(&path).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(&bytes).unwrap();
    drop(bodies.pop());
    for body in bodies {
        let rest = body.collect::<Vec<_>>();
        let rest = tokio::time::timeout(Duration::from_secs(10), rest).await.expect("it has an end");
        let text: String = rest.iter().map(|part| String::from_utf8_lossy(part.as_ref().unwrap())).collect();
        assert!(text.contains("\"error\"") || text.contains("[DONE]"), "{text}");
    }
}

#[tokio::test]
async fn many_at_once_get_what_each_gets_alone() {
    let server = server(4, Access::default());
    let questions: Vec<String> = (0..9).map(|i| format!("question {i} {}", "x".repeat(7 * i))).collect();
    let asked = questions.iter().map(|question| {
        let server = &server;
        async move {
            let messages = json!({"messages": [{"role": "user", "content": question}]});
            object(send(server, chat(messages)).await, StatusCode::OK).await
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    for (question, answer) in questions.iter().zip(answers) {
        assert_eq!(
            answer["choices"][0]["message"]["content"],
            expected(&rendered(question), 12),
            "{question}"
        );
    }
}
