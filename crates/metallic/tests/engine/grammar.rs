//! Answers of a given form.

use std::time::{Duration, Instant};

use metallic::engine::{FinishReason, Grammar, Grammars, MAX_GRAMMAR_BYTES};
use metallic::sampling::SamplingParams;
use metallic::{Error, Event, Request};
use serde_json::{Value, json};

use crate::{Heard, engine, request};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "n"],
        "additionalProperties": false,
    })
}

/// Whatever a model of random weights would rather say.
#[test]
fn an_answer_keeps_to_its_form_and_ends_with_it() {
    let mut engine = engine(256, 2);
    for seed in 0..8 {
        let mut heard = Heard::default();
        let grammars = Grammars::new(engine.tokenizer()).unwrap();
        let asked = |grammar: Grammar| Request {
            sampling: SamplingParams { temperature: 1.0, seed: Some(seed), ..SamplingParams::default() },
            form: Some(grammars.compile(&grammar).unwrap()),
            ..request(&engine, "abc", 120)
        };
        let (with_schema, with_regex) =
            (asked(Grammar::JsonSchema(schema())), asked(Grammar::Regex("(yes|no), [0-9]{3}".to_owned())));
        let ids = [with_schema, with_regex].map(|request| engine.submit(request).unwrap());
        while engine.step(&mut |event| heard.take(event)) {}
        let [object, text] = ids.map(|id| heard.0[&id].clone());
        assert_eq!(text.end.unwrap().0, FinishReason::StopToken, "{}", text.text);
        let (word, number) = text.text.split_once(", ").unwrap();
        assert!(
            ["yes", "no"].contains(&word) && number.len() == 3 && number.parse::<u16>().is_ok(),
            "{}",
            text.text
        );
        // White space between its parts may take all tokens that there are.
        if object.end.unwrap().0 == FinishReason::StopToken {
            let value: Value =
                serde_json::from_str(&object.text).unwrap_or_else(|_| panic!("{:?}", object.text));
            assert!(value["name"].is_string() && value["n"].as_u64().is_some_and(|n| n < 100), "{value}");
            assert_eq!(value.as_object().unwrap().len(), 2);
        }
    }
}

#[test]
fn a_form_leaves_others_what_they_say() {
    let alone = {
        let mut engine = engine(256, 2);
        let mut heard = Heard::default();
        let id = engine.submit(request(&engine, "abc", 20)).unwrap();
        while engine.step(&mut |event| heard.take(event)) {}
        heard.0[&id].text.clone()
    };
    let mut engine = engine(256, 2);
    let mut heard = Heard::default();
    let id = engine.submit(request(&engine, "abc", 20)).unwrap();
    let form = Grammars::new(engine.tokenizer()).unwrap().compile(&Grammar::json_object()).unwrap();
    let form = Request { form: Some(form), ..request(&engine, "xyz", 20) };
    engine.submit(form).unwrap();
    while engine.step(&mut |event| heard.take(event)) {}
    assert_eq!(heard.0[&id].text, alone);
}

#[test]
fn what_is_no_form_is_an_error_of_a_line() {
    let grammars = Grammars::new(engine(256, 1).tokenizer()).unwrap();
    for grammar in [
        Grammar::JsonSchema(json!({"type": "no such type"})),
        Grammar::JsonSchema(json!({"$ref": "#/nowhere"})),
        Grammar::JsonSchema(json!({"type": "integer", "multipleOf": 999_999_937})),
        Grammar::Regex("(".to_owned()),
        Grammar::Regex("a".repeat(MAX_GRAMMAR_BYTES + 1)),
        Grammar::Lark("start: missing".to_owned()),
    ] {
        match grammars.compile(&grammar) {
            Err(Error::Grammar { reason }) => assert!((1..400).contains(&reason.len()), "{reason}"),
            other => panic!("{grammar:?}: {other:?}"),
        }
    }
}

/// As many references to references as a schema has room for.
#[test]
fn a_deep_schema_ends_no_process() {
    let grammars = Grammars::new(engine(256, 1).tokenizer()).unwrap();
    for kind in ["$ref", "items", "anyOf", "properties"] {
        let definition = |n: usize| {
            let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
            let value = match kind {
                "$ref" => next,
                "items" => json!({"items": next}),
                "anyOf" => json!({"anyOf": [next]}),
                _ => json!({"properties": {"a": next}}),
            };
            (n.to_string(), value)
        };
        let n_bytes = definition(9999).1.to_string().len() + 10;
        let n = MAX_GRAMMAR_BYTES / n_bytes;
        let last = (n.to_string(), json!({"type": "null"}));
        let definitions: serde_json::Map<_, _> = (0..n).map(definition).chain([last]).collect();
        let schema = json!({"$ref": "#/$defs/0", "$defs": definitions});
        assert!((MAX_GRAMMAR_BYTES / 2..=MAX_GRAMMAR_BYTES).contains(&schema.to_string().len()));
        // Whether it is taken is the library's to say.
        let _ = grammars.compile(&Grammar::JsonSchema(schema)).map(|form| drop(form.clone()));
    }
}

/// A hostile grammar may make each token's choice take seconds, for which all answers would wait.
#[test]
fn a_form_that_takes_too_long_fails_its_own_request_alone() {
    let mut engine = engine(256, 2);
    let grammars = Grammars::new(engine.tokenizer()).unwrap();
    let slow = "root ::= x+\nx ::= [^b]{0,500} | \"(\" x \")\" | x x".to_owned();
    let asked = Request {
        sampling: SamplingParams { temperature: 1.0, seed: Some(1), ..SamplingParams::default() },
        form: Some(grammars.compile(&Grammar::Gbnf(slow)).unwrap()),
        ignore_eos: true,
        ..request(&engine, "abc", 200)
    };
    let (hostile, other) = (engine.submit(asked).unwrap(), request(&engine, "abc", 20));
    let other = engine.submit(other).unwrap();
    let (mut heard, mut reason) = (Heard::default(), None);
    loop {
        let began = Instant::now();
        let goes_on = engine.step(&mut |event| match event {
            Event::Failed { request, error } => {
                assert_eq!(request, hostile);
                reason = Some(error.to_string());
            }
            event => heard.take(event),
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        if !goes_on {
            break;
        }
    }
    assert!(reason.as_ref().is_some_and(|reason| reason.contains("too long")), "{reason:?}");
    assert_eq!(heard.of(other).1, FinishReason::MaxTokens);
}
