//! `metallic run --json`.

use std::f64::consts::LN_2;

use metallic::Isa;
use serde_json::{Value, json};

use crate::alphabet::{self, LOGIT, N_VOCAB, TEMPLATE};
use crate::answers::thinker;
use crate::sandbox::Sandbox;

/// The lines that the program prints for an answer.
fn lines(sandbox: &Sandbox, args: &[&str]) -> Vec<Value> {
    let outcome = sandbox.run(&[&["run", "a.gguf", "--json", "--temp", "0"], args].concat()).succeeds();
    let lines = outcome.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).collect()
}

#[test]
fn every_line_is_an_object_and_the_last_tells_the_end() {
    let sandbox = Sandbox::new("json-lines");
    sandbox.write("a.gguf", alphabet::model());
    for (args, text, reason, n_generated) in [
        (&["--raw", "wx"][..], "yz", "stop", 3),
        (&["--raw", "-n", "2", "abc"], "de", "max_tokens", 2),
        (&["--raw", "--stop", "f", "abc"], "de", "stop_text", 3),
    ] {
        let lines = lines(&sandbox, args);
        let said: String = of_type(&lines, "text").iter().filter_map(|line| line["text"].as_str()).collect();
        assert_eq!(said, text, "{args:?}");
        let end = lines.last().unwrap();
        assert_eq!(
            (&end["type"], &end["reason"], &end["n_generated"]),
            (&json!("end"), &json!(reason), &json!(n_generated))
        );
        assert_eq!(of_type(&lines, "token").len(), n_generated, "{args:?}");
        let n_prompt = args.last().unwrap().len();
        assert_eq!(
            [&end["n_prompt"], &end["n_cached"], &end["n_read"]],
            [&json!(n_prompt), &json!(0), &json!(n_prompt)]
        );
        assert!(Isa::available().iter().any(|isa| end["isa"] == isa.name()), "{end}");
        for time in ["prefill_s", "decode_s", "prefill_tokens_s", "decode_tokens_s"] {
            assert!(end[time].as_f64().is_some_and(|value| value > 0.0), "{time} {end}");
        }
    }
    let ids: Vec<_> =
        lines(&sandbox, &["--raw", "wx"]).into_iter().filter_map(|line| line["id"].as_u64()).collect();
    assert_eq!(ids, [121, 122, 257]);
    // A full context has its end, and the exit code that it has without --json.
    let full = sandbox.run(&["run", "a.gguf", "--json", "--temp", "0", "--raw", "-c", "8", "abc"]);
    full.fails(1);
    assert!(full.stdout.lines().next_back().unwrap().contains("\"reason\":\"context_full\""), "{full:?}");
}

/// The successor has the logit LOGIT and every other token 0.
#[test]
fn log_probabilities_are_the_models() {
    let sandbox = Sandbox::new("json-logprobs");
    sandbox.write("a.gguf", alphabet::model());
    let lines = lines(&sandbox, &["--logprobs", "2", "--raw", "-n", "1", "abc"]);
    let token = of_type(&lines, "token")[0];
    let log_sum = (f64::from(LOGIT).exp() + N_VOCAB as f64 - 1.0).ln();
    let is_near = |value: &Value, expected: f64| {
        value.as_f64().is_some_and(|value| (value - expected).abs() < 0.01 * LN_2)
    };
    assert_eq!((&token["id"], &token["text"]), (&json!(100), &json!("d")));
    assert!(is_near(&token["logprob"], f64::from(LOGIT) - log_sum), "{token}");
    let top = token["top"].as_array().unwrap();
    assert_eq!(
        (top.len(), &top[0]["id"], &top[0]["text"], &top[1]["id"]),
        (2, &json!(100), &json!("d"), &json!(0))
    );
    assert!(
        is_near(&top[0]["logprob"], f64::from(LOGIT) - log_sum) && is_near(&top[1]["logprob"], -log_sum),
        "{token}"
    );
    let without = self::lines(&sandbox, &["--raw", "-n", "1", "abc"]);
    assert_eq!(of_type(&without, "token")[0], &json!({ "type": "token", "id": 100, "text": "d" }));
}

#[test]
fn reasoning_and_calls_are_told_as_such() {
    let sandbox = thinker("json-parts");
    let marks = "{# <|START_THINKING|> <|START_ACTION|> #}";
    sandbox.write("t.jinja", format!("{{{{ tools[0].function.name if tools }}}}{TEMPLATE}{marks}"));
    let args = ["--chat-template", "t.jinja", "--tools", "tools.json", "-n", "9", "hi"];
    let lines = lines(&sandbox, &args);
    assert_eq!(of_type(&lines, "reasoning"), [&json!({ "type": "reasoning", "text": "W" })]);
    let arguments = json!({ "city": "Paris" });
    assert_eq!(
        of_type(&lines, "tool_call"),
        [&json!({ "type": "tool_call", "name": "weather", "arguments": arguments })]
    );
    assert_eq!(of_type(&lines, "token").len(), 9);
    let hidden = self::lines(&sandbox, &[&["--reasoning", "hide"][..], &args].concat());
    assert!(of_type(&hidden, "reasoning").is_empty());
}
