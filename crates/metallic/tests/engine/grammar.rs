//! Answers of a given form.

use metallic::engine::{Event, FinishReason, Grammar};
use metallic::sampling::SamplingParams;
use metallic::{Error, Request};
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
        let asked = |grammar: Option<Grammar>| Request {
            sampling: SamplingParams { temperature: 1.0, seed: Some(seed), ..SamplingParams::default() },
            grammar,
            ..request(&engine, "abc", 120)
        };
        let (with_schema, with_regex) = (
            asked(Some(Grammar::JsonSchema(schema()))),
            asked(Some(Grammar::Regex("(yes|no), [0-9]{3}".to_owned()))),
        );
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
    let form = Request { grammar: Some(Grammar::json_object()), ..request(&engine, "xyz", 20) };
    engine.submit(form).unwrap();
    while engine.step(&mut |event| heard.take(event)) {}
    assert_eq!(heard.0[&id].text, alone);
}

#[test]
fn what_is_no_form_is_an_error_before_anything_is_generated() {
    let mut engine = engine(256, 1);
    for grammar in [
        Grammar::JsonSchema(json!({"type": "no such type"})),
        Grammar::JsonSchema(json!({"$ref": "#/nowhere"})),
        Grammar::Regex("(".to_owned()),
        Grammar::Lark("start: missing".to_owned()),
    ] {
        let asked = Request { grammar: Some(grammar.clone()), ..request(&engine, "abc", 5) };
        match engine.submit(asked) {
            Err(Error::Grammar { reason }) => assert!(!reason.is_empty()),
            other => panic!("{grammar:?}: {other:?}"),
        }
    }
    assert!(!engine.step(&mut |event: Event| panic!("{event:?}")));
}
