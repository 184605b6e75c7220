//! Ollama's API.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::{N_CTX, expected, object, open_server, post, rendered, send, text};

const ASKED: &str = r#"{"model": "tiny", "messages": [{"role": "user", "content": "abc"}],
    "options": {"temperature": 0, "num_predict": 12}, "keep_alive": "5m"}"#;

fn asked(more: Value) -> Value {
    let mut body: Value = serde_json::from_str(ASKED).unwrap();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn an_answer_is_the_engines_own_whole_and_in_lines() {
    let server = open_server();
    let answer = expected(&rendered("abc"), 12);
    let whole = post("/api/chat", asked(json!({"stream": false})));
    let whole = object(send(&server, whole).await, StatusCode::OK).await;
    assert_eq!(whole["message"], json!({"role": "assistant", "content": answer}));
    assert_eq!(
        (&whole["done"], &whole["done_reason"], &whole["eval_count"]),
        (&true.into(), &"length".into(), &12.into())
    );

    // Streamed unless it is said otherwise.
    let response = send(&server, post("/api/chat", asked(json!({})))).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let lines = text(response).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().enumerate().all(|(i, line)| line["done"] == (i + 1 == lines.len())));
    let pieces = lines.iter().map(|line| line["message"]["content"].as_str().unwrap());
    assert_eq!(pieces.collect::<String>(), answer);

    let options = json!({"temperature": 0, "num_predict": 12});
    let generate = |is_raw: bool| {
        post("/api/generate", json!({"prompt": "abc", "raw": is_raw, "stream": false, "options": options}))
    };
    let raw = object(send(&server, generate(true)).await, StatusCode::OK).await;
    assert_eq!(raw["response"], expected("abc", 12));
    assert_eq!(object(send(&server, generate(false)).await, StatusCode::OK).await["response"], answer);
}

#[tokio::test]
async fn what_is_wrong_is_one_line() {
    let server = open_server();
    for (more, status) in [
        (json!({"model": "llama3"}), StatusCode::NOT_FOUND),
        (json!({"format": "yaml"}), StatusCode::BAD_REQUEST),
        (json!({"format": {"type": "shape"}}), StatusCode::BAD_REQUEST),
        (json!({"options": {"num_ctx": N_CTX + 1}}), StatusCode::BAD_REQUEST),
        (json!({"options": {"magic": 1}}), StatusCode::BAD_REQUEST),
        (json!({"messages": [{"role": "user", "content": "a", "images": ["…"]}]}), StatusCode::BAD_REQUEST),
    ] {
        let error = object(send(&server, post("/api/chat", asked(more.clone()))).await, status).await;
        assert!(error["error"].is_string(), "{more}: {error}");
    }
    for more in [json!({"system": "Be brief."}), json!({"think": true})] {
        let mut body = json!({"prompt": "abc", "raw": true, "stream": false});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let error = object(send(&server, post("/api/generate", body)).await, StatusCode::BAD_REQUEST).await;
        assert!(error["error"].as_str().unwrap().contains("no place for it"), "{more}: {error}");
    }
    let harmless = json!({"model": "tiny:latest", "stream": false, "options": {"num_ctx": N_CTX, "num_gpu": 1, "num_predict": 1}});
    object(send(&server, post("/api/chat", asked(harmless))).await, StatusCode::OK).await;
}

#[tokio::test]
async fn models_are_told_and_loaded() {
    let server = open_server();
    for path in ["/api/tags", "/api/ps"] {
        let response = send(&server, Request::get(path).body(Body::empty()).unwrap()).await;
        let models = object(response, StatusCode::OK).await;
        assert_eq!(
            (&models["models"][0]["name"], &models["models"][1]),
            (&"tiny".into(), &Value::Null),
            "{path}"
        );
    }
    let shown =
        object(send(&server, post("/api/show", json!({"model": "tiny"}))).await, StatusCode::OK).await;
    assert_eq!((&shown["details"]["family"], &shown["details"]["format"]), (&"llama".into(), &"gguf".into()));
    let version = send(&server, Request::get("/api/version").body(Body::empty()).unwrap()).await;
    assert!(object(version, StatusCode::OK).await["version"].is_string());
    // Some clients ask for nothing, so that the model be there.
    for (path, body) in [("/api/chat", json!({"messages": []})), ("/api/generate", json!({"model": "tiny"}))]
    {
        assert_eq!(
            object(send(&server, post(path, body)).await, StatusCode::OK).await["done_reason"],
            "load"
        );
    }
}
