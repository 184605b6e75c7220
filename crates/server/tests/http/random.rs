//! Whatever is sent is answered or refused, and is never a failure.

use std::fs;
use std::path::Path;

use axum::http::StatusCode;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub)] // a crate of its own there
mod fuzz;

use fuzz::{ENDPOINTS, Server};

/// Names that the readers know, so that what is under them is looked at.
const NAMES: [&str; 62] = [
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "tools",
    "tool_choice",
    "tool_call_id",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "stop",
    "stream",
    "stream_options",
    "include_usage",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "json_schema",
    "schema",
    "prompt",
    "suffix",
    "system",
    "stop_sequences",
    "thinking",
    "input",
    "id",
    "tool_use_id",
    "options",
    "num_predict",
    "num_ctx",
    "format",
    "think",
    "raw",
    "images",
    "keep_alive",
    "n_predict",
    "with_pieces",
    "add_special",
    "chat_template_kwargs",
    "reasoning_effort",
    "repeat_last_n",
    "frequency_penalty",
    "properties",
    "required",
    "enum",
    "parameters",
    "budget_tokens",
    "echo",
    "user",
    "0",
];

/// Texts that mean something somewhere.
const TEXTS: [&str; 24] = [
    "",
    "a",
    "user",
    "assistant",
    "system",
    "tool",
    "text",
    "tool_use",
    "tool_result",
    "thinking",
    "auto",
    "none",
    "function",
    "json_object",
    "json_schema",
    "json",
    "tiny",
    "object",
    "{\"x\":1}",
    "[[[[",
    "<|im_end|>",
    "\u{0}é\u{10ffff}",
    "enabled",
    "1",
];

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (-2..10i64).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        prop::sample::select(&TEXTS[..]).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let name =
            prop_oneof![9 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((name, inner), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A body that is right for the endpoint.
fn good(endpoint: &str) -> Value {
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}]},
    ]);
    match endpoint {
        "/v1/completions" => json!({"prompt": "a", "max_tokens": 2}),
        "/completion" => json!({"prompt": "a", "n_predict": 2}),
        "/api/chat" => json!({"messages": [{"role": "user", "content": "a"}], "options": {"num_predict": 2}}),
        "/api/generate" => json!({"prompt": "a", "options": {"num_predict": 2}}),
        "/api/show" => json!({"model": "tiny"}),
        "/tokenize" => json!({"content": "a"}),
        "/apply-template" | "/v1/messages/count_tokens" => json!({"messages": messages}),
        _ => json!({"messages": messages, "max_tokens": 2}),
    }
}

/// Puts a value at some place of another.
fn put(into: &mut Value, place: &[u8], name: &str, value: Value) {
    let Some((first, rest)) = place.split_first() else {
        match into {
            Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
            _ => *into = value,
        }
        return;
    };
    match into {
        Value::Object(fields) if !fields.is_empty() => {
            let n = usize::from(*first) % fields.len();
            put(fields.values_mut().nth(n).unwrap(), rest, name, value);
        }
        Value::Array(values) if !values.is_empty() => {
            let n = usize::from(*first) % values.len();
            put(&mut values[n], rest, name, value);
        }
        _ => put(into, &[], name, value),
    }
}

#[test]
fn any_json_is_answered_or_refused() {
    let server = Server::start();
    let cases = if std::env::var_os("METALLIC_FULL").is_some() { 20_000 } else { 1500 };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let name = prop::sample::select(&NAMES[..]);
    let changes = vec((vec(any::<u8>(), 0..4), name, value()), 0..3);
    let asked = (prop::sample::select(&ENDPOINTS[..]), any::<bool>(), value(), changes);
    runner
        .run(&asked, |(endpoint, is_good, any, changes)| {
            let mut body = if is_good { good(endpoint) } else { any };
            for (place, name, value) in changes {
                put(&mut body, &place, name, value);
            }
            server.ask(endpoint, body.to_string().as_bytes());
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_right_for_an_endpoint_is_answered() {
    let server = Server::start();
    for endpoint in ENDPOINTS {
        assert_eq!(server.ask(endpoint, good(endpoint).to_string().as_bytes()), StatusCode::OK, "{endpoint}");
    }
}

#[test]
fn the_seeds_of_the_fuzz_target_are_answered_or_refused() {
    let server = Server::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut n_seeds = 0;
    for seed in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(seed.unwrap().path()).unwrap();
        // And every way to cut it short.
        for length in (0..bytes.len().min(1000)).step_by(7).chain([bytes.len()]) {
            server.ask_any(&bytes[..length]);
        }
        n_seeds += 1;
    }
    assert!(n_seeds > 10);
}
