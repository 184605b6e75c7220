//! llama-server's own endpoints.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::{N_CTX, events, expected, object, open_server, post, rendered, send, text};

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn texts_are_tokens_and_tokens_are_texts() {
    let server = open_server();
    // A token for each byte, after which the vocabulary has its special ones.
    let tokens =
        object(send(&server, post("/tokenize", json!({"content": "aé"}))).await, StatusCode::OK).await;
    assert_eq!(tokens, json!({"tokens": [97, 195, 169]}));
    let pieces = post("/tokenize", json!({"content": "aé", "with_pieces": true, "add_special": true}));
    let pieces = object(send(&server, pieces).await, StatusCode::OK).await;
    assert_eq!(pieces["tokens"][1], json!({"id": 97, "piece": "a"}));
    assert_eq!(pieces["tokens"][2], json!({"id": 195, "piece": [195]}), "half a character is no text");
    let content = post("/detokenize", json!({"tokens": [97, 195, 169]}));
    assert_eq!(object(send(&server, content).await, StatusCode::OK).await, json!({"content": "aé"}));
    let content = post("/detokenize", json!({"tokens": [256, 97]}));
    assert_eq!(object(send(&server, content).await, StatusCode::OK).await, json!({"content": "<|bos|>a"}));
    object(send(&server, post("/detokenize", json!({"tokens": [9999]}))).await, StatusCode::BAD_REQUEST)
        .await;
    object(send(&server, post("/tokenize", json!({}))).await, StatusCode::BAD_REQUEST).await;

    let conversation = json!({"messages": [{"role": "user", "content": "abc"}]});
    let prompt = object(send(&server, post("/apply-template", conversation)).await, StatusCode::OK).await;
    assert_eq!(prompt["prompt"], rendered("abc"));
}

#[tokio::test]
async fn a_text_goes_on_whole_and_in_pieces() {
    let server = open_server();
    let asked = |more: Value| {
        let mut body = json!({"prompt": "abc", "temperature": 0, "n_predict": 12});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post("/completion", body)
    };
    let answer = expected("abc", 12);
    let whole = object(send(&server, asked(json!({}))).await, StatusCode::OK).await;
    assert_eq!((&whole["content"], &whole["stop_type"]), (&json!(answer), &"limit".into()));
    assert_eq!((&whole["stop"], &whole["tokens_predicted"]), (&true.into(), &12.into()));
    let streamed = text(send(&server, asked(json!({"stream": true}))).await).await;
    let pieces: Vec<Value> =
        events(&streamed).iter().map(|data| serde_json::from_str(data).unwrap()).collect();
    assert!(pieces.iter().enumerate().all(|(i, piece)| piece["stop"] == (i + 1 == pieces.len())));
    assert_eq!(pieces.iter().map(|piece| piece["content"].as_str().unwrap()).collect::<String>(), answer);
}

#[tokio::test]
async fn an_answer_is_what_a_grammar_derives() {
    let server = open_server();
    let grammar = "root ::= \"(\" root \")\" | [0-9]{3} \"!\"";
    let form = json!({"grammar": grammar, "temperature": 1, "seed": 5});
    let asked = |path: &str, more: Value| {
        let mut body = json!({"prompt": "abc", "messages": [{"role": "user", "content": "abc"}]});
        let other = if path == "/v1/chat/completions" { "prompt" } else { "messages" };
        body.as_object_mut().unwrap().remove(other);
        // What llama-server calls the limit.
        body[if path == "/completion" { "n_predict" } else { "max_tokens" }] = json!(100);
        body.as_object_mut().unwrap().extend(form.as_object().unwrap().clone());
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(path, body)
    };
    for (path, content) in [
        ("/completion", "/content"),
        ("/v1/completions", "/choices/0/text"),
        ("/v1/chat/completions", "/choices/0/message/content"),
    ] {
        let answer = object(send(&server, asked(path, json!({}))).await, StatusCode::OK).await;
        let content = answer.pointer(content).and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}"));
        let inner = content.trim_start_matches('(');
        let (number, close) = inner.split_once('!').unwrap_or_else(|| panic!("{content}"));
        assert!(number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit()), "{content}");
        assert_eq!(close, ")".repeat(content.len() - inner.len()));

        // An empty one is none.
        object(send(&server, asked(path, json!({"grammar": ""}))).await, StatusCode::OK).await;
        for (more, said) in [
            (json!({"grammar": "root ::= x"}), "line 1, column 10: there is no rule `x`"),
            (json!({"grammar": 1}), "grammar"),
        ] {
            let error = object(send(&server, asked(path, more)).await, StatusCode::BAD_REQUEST).await;
            assert!(error["error"]["message"].as_str().unwrap().contains(said), "{error}");
        }
    }
    for (path, other) in [
        ("/completion", json!({"json_schema": {}})),
        ("/v1/chat/completions", json!({"response_format": {"type": "json_object"}})),
        ("/v1/chat/completions", json!({"tools": [{"type": "function", "function": {"name": "f"}}]})),
    ] {
        let error = object(send(&server, asked(path, other)).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(error["error"]["param"], "grammar", "{error}");
    }
}

#[tokio::test]
async fn what_was_asked_is_counted() {
    let server = open_server();
    let props = object(send(&server, get("/props")).await, StatusCode::OK).await;
    assert_eq!(
        (&props["total_slots"], &props["default_generation_settings"]["n_ctx"]),
        (&2.into(), &N_CTX.into())
    );
    assert_eq!(object(send(&server, get("/health")).await, StatusCode::OK).await["status"], "ok");
    let asked = || post("/completion", json!({"prompt": "abc", "n_predict": 5, "ignore_eos": true}));
    for _ in 0..2 {
        object(send(&server, asked()).await, StatusCode::OK).await;
    }
    let metrics = text(send(&server, get("/metrics")).await).await;
    let value = |name: &str| {
        let line =
            metrics.lines().find(|line| line.starts_with(&format!("metallic_{name}{{model=\"tiny\"}} ")));
        line.and_then(|line| line.rsplit_once(' '))
            .unwrap_or_else(|| panic!("{metrics}"))
            .1
            .parse::<f64>()
            .unwrap()
    };
    assert_eq!((value("requests_total"), value("requests_failed_total")), (2.0, 0.0));
    assert_eq!(value("generated_tokens_total"), 10.0);
    assert!(value("prompt_tokens_total") > 0.0 && value("cached_tokens_total") > 0.0, "{metrics}");
    assert!(value("generation_seconds_total") > 0.0, "{metrics}");
    // Of each answer one token is the first, and the others come after one.
    let n_answers = value("requests_total");
    assert_eq!(value("first_token_seconds_count"), n_answers, "{metrics}");
    assert_eq!(value("token_seconds_count"), value("generated_tokens_total") - n_answers, "{metrics}");
    assert_eq!(value("queue"), 0.0);
}

#[tokio::test]
async fn places_are_told_and_a_model_without_tokens_for_gaps_fills_none() {
    let server = open_server();
    let slots = object(send(&server, get("/slots")).await, StatusCode::OK).await;
    let place = |id| json!({"id": id, "model": "tiny", "n_ctx": N_CTX, "is_processing": false});
    assert_eq!(slots, json!([place(0), place(1)]));
    let gap = |more: Value| {
        let mut body = json!({"input_prefix": "a", "input_suffix": "b"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post("/infill", body)
    };
    for (more, said) in [
        (json!({}), "not trained to fill in"),
        (json!({"input_suffix": null}), "input_suffix: it is missing"),
        (json!({"input_extra": [{"text": "x"}]}), "input_extra"),
    ] {
        let error = object(send(&server, gap(more)).await, StatusCode::BAD_REQUEST).await;
        assert!(error["error"]["message"].as_str().unwrap().contains(said), "{error}");
    }
}
