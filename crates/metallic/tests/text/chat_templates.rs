//! Published chat templates against what Python's jinja2 renders for the same conversations.

use std::collections::BTreeMap;

use metallic::text::{ChatTemplate, Message, RenderOptions, TemplateError};
use metallic_gguf::{Gguf, GgufWriter};
use serde::Deserialize;
use serde_json::Value;

use crate::oracles::Oracles;

#[derive(Deserialize)]
struct Expected {
    conversations: BTreeMap<String, Conversation>,
    context: Context,
    expected: BTreeMap<String, BTreeMap<String, Outcome>>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<Value>,
    add_generation_prompt: bool,
}

#[derive(Deserialize)]
struct Context {
    bos_token: String,
    eos_token: String,
    strftime_now: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Text(String),
    Error(#[allow(dead_code)] String), // shown where it is not met
}

#[test]
fn templates_render_as_in_python() {
    let Some(oracles) = Oracles::find() else { return };
    let all: Expected =
        serde_json::from_slice(&oracles.read("chat_templates/expected.json")).expect("the oracle's answers");
    let (mut n_same, mut n_different) = (0, 0);
    for (file, outcomes) in &all.expected {
        let source = String::from_utf8(oracles.read(&format!("chat_templates/{file}"))).expect("UTF-8");
        let template = ChatTemplate::new(&source).unwrap_or_else(|e| panic!("{file}: {e}"));
        for (name, outcome) in outcomes {
            let conversation = &all.conversations[name];
            let found = template.render(&conversation.messages, &options(&all.context, conversation));
            let same = match (outcome, &found) {
                (Outcome::Text(expected), Ok(text)) => expected == text,
                (Outcome::Error(_), Err(_)) => true,
                _ => false,
            };
            if same {
                n_same += 1;
            } else {
                println!("{file}, {name}: expected {outcome:?}, found {found:?}");
                n_different += 1;
            }
        }
    }
    println!("{n_same} conversations rendered as in Python, {n_different} not");
    assert_eq!(n_different, 0);
    assert!(n_same > 0);
}

/// Templates of our own for formats that published ones have, and the conversations that both write alike.
#[test]
fn built_in_templates_write_what_published_ones_do() {
    let Some(oracles) = Oracles::find() else { return };
    let all: Expected =
        serde_json::from_slice(&oracles.read("chat_templates/expected.json")).expect("the oracle's answers");
    for (name, published, conversations) in [
        ("chatml", "MiMo-VL", &["turns"][..]),
        ("chatml", "LFM2-8B-A1B", &["one", "turns", "closed"]),
        ("gemma", "google-gemma-2-2b-it", &["one", "closed"]),
        ("llama3", "meta-llama-Llama-3.1-8B-Instruct", &["one", "turns", "closed"]),
        ("mistral", "mistralai-Mistral-Nemo-Instruct-2407", &["one", "turns", "closed"]),
        ("phi3", "microsoft-Phi-3.5-mini-instruct", &["one", "turns", "closed"]),
    ] {
        let template = ChatTemplate::built_in(name).expect(name);
        for &conversation in conversations {
            let Outcome::Text(expected) = &all.expected[&format!("{published}.jinja")][conversation] else {
                panic!("{published} fails on {conversation}")
            };
            let conversation = &all.conversations[conversation];
            let text = template.render(&conversation.messages, &options(&all.context, conversation));
            // Llama 3.1 adds a system message with dates, or dates to the one there is.
            let dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
            let dated = format!("<|start_header_id|>system<|end_header_id|>\n\n{dates}<|eot_id|>");
            let expected = expected.replace(&dated, "").replace(dates, "");
            // Which text begins with BOS is left to the tokenizer's settings where the format does not say.
            let begins = |text: &str| text.trim_start_matches("<s>").to_owned();
            assert_eq!(begins(&text.expect(name)), begins(&expected), "{name}, {published}");
        }
    }
    assert!(ChatTemplate::built_in_names().all(|name| ChatTemplate::built_in(name).is_some()));
    assert!(ChatTemplate::built_in("none").is_none());
    let system = [Message::new("system", "Be brief. "), Message::new("user", " Hi")];
    let text =
        ChatTemplate::built_in("gemma").expect("a template").render(&system, &RenderOptions::default());
    assert_eq!(
        text.expect("a text"),
        "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"
    );
}

fn options(context: &Context, conversation: &Conversation) -> RenderOptions {
    RenderOptions {
        add_generation_prompt: conversation.add_generation_prompt,
        tools: conversation.tools.clone(),
        bos_token: context.bos_token.clone(),
        eos_token: context.eos_token.clone(),
        now: Some(context.strftime_now.parse().expect("a time")),
        ..RenderOptions::default()
    }
}

fn render(source: &str) -> Result<String, TemplateError> {
    ChatTemplate::new(source)?.render(&[Message::new("user", "Hi")], &RenderOptions::default())
}

/// Templates that would never end, or take all memory.
#[test]
fn hostile_templates_run_out_of_fuel() {
    let grow = |what: &str, then: &str| {
        format!("{{% set n = namespace(s={what}) %}}{{% for i in range(99) %}}{then}")
    };
    let doubled = "{% set n.s = [n.s, n.s] %}{% endfor %}";
    let hostile = [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}".to_owned(),
        grow("'x'", "{% set n.s = n.s ~ n.s %}{% endfor %}"),
        grow("'x'", "{% set n.s = n.s + n.s %}{% endfor %}"),
        grow("'x'", "{% set n.s = n.s | replace('x', 'xx') %}{% endfor %}"),
        grow("'x'", "{% set n.s = n.s.replace('x', 'xx') %}{% endfor %}"),
        grow("['x']", &format!("{doubled}{{{{ n.s | tojson }}}}")),
        grow("['x']", &format!("{doubled}{{{{ n.s }}}}")),
        grow("['x']", "{% set n.s = n.s + n.s %}{% endfor %}{{ n.s ~ '' }}"),
        "{% set a = ['x'] %}".to_owned() + &"{% set a = [a, a] %}".repeat(60) + "{{ a == [a] }}",
        "{{ 'x' * 99999999 * 99999999 }}".to_owned(),
        "{{ [[1]] | tojson(indent=9999999999) }}".to_owned(),
        "{{ '%999999999999d' | format(1) }}".to_owned(),
        "{{ 'x' | indent(9999999999) }}".to_owned(),
        "{{ '%999999999999d' % 1 }}".to_owned(),
        "{{ '%.999999999999f' % 1 }}".to_owned(),
        "{{ '%*d' % (99999999999, 1) }}".to_owned(),
        "{{ '{:999999999999}'.format(1) }}".to_owned(),
        "{{ '{:.99999999999999999999999f}'.format(1) }}".to_owned(),
        "{{ 'x' | center(9999999999) }}".to_owned(),
        "{{ 'x'.center(9999999999) }}{{ 'x'.zfill(9999999999) }}".to_owned(),
        "{{ '\\t'.expandtabs(9999999999) }}".to_owned(),
        "{{ [1] * 9999999999 }}".to_owned(),
        "{{ (1, 2) * 9999999999 }}".to_owned(),
        "{{ [1] | batch(9999999999, 0) | list }}".to_owned(),
        "{{ [1] | slice(9999999999) | list }}".to_owned(),
        "{{ ('x' * 99999).replace('x', 'y' * 99999) }}".to_owned(),
        "{{ ('x' * 99999) | replace('', 'y' * 99999) }}".to_owned(),
        "{{ ('y' * 99999).join('x' * 99999) }}".to_owned(),
        "{{ ('x' * 99999) | join('y' * 99999) }}".to_owned(),
        "{{ ('x\\n' * 99999) | indent('y' * 99999) }}".to_owned(),
        "{{ ('x\\n' * 99999) | wordwrap(1, wrapstring='y' * 99999) }}".to_owned(),
        grow("['x']", "{% set n.s = n.s + n.s %}{% endfor %}"),
        grow("('x',)", "{% set n.s = n.s + n.s %}{% endfor %}"),
        grow("'x'", "{% set n.s = '%s%s' % (n.s, n.s) %}{% endfor %}"),
        grow("'x'", "{% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}"),
        grow("'x'", "{% set n.s = n.s.join([n.s, n.s]) %}{% endfor %}"),
        grow("'x'", "{% set n.s = n.s | e ~ n.s | urlencode %}{% endfor %}"),
        "{% macro f(x, n) %}{% if n %}{{ f([x, x, x, x], n - 1) }}{% else %}{{ x | pprint }}{% endif %}{% endmacro %}\
         {{ f(['x'], 14) }}"
            .to_owned(),
    ];
    for source in hostile {
        let error = render(&source).expect_err(&source);
        assert!(matches!(error, TemplateError::OutOfFuel { .. }), "{source}: {error}");
        assert!(error.to_string().contains("fuel"));
    }
}

/// Templates that would overflow the stack.
#[test]
fn deep_templates_are_refused() {
    let nested = |open: &str, close: &str, n| format!("{{{{ {}1{} }}}}", open.repeat(n), close.repeat(n));
    let hostile = [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% set n = namespace(s=[]) %}{% set n.s = n %}{{ n ~ '' }}".to_owned(),
        "{% set n = namespace(s=[]) %}{% set n.s = [n] %}{{ n ~ '' }}".to_owned(),
        "{% set n = namespace() %}{% set a = [n] %}{% set n.s = a %}{{ n | tojson }}".to_owned(),
        "{% set n = namespace(s=[]) %}{% for i in range(9999) %}{% set n.s = [n.s] %}{% endfor %}".to_owned(),
        "{% set a = [] %}".to_owned() + &"{% set a = [a] %}".repeat(9999) + "{{ a ~ '' }}",
        nested("(", ")", 10_000),
        nested("[", "]", 10_000),
        nested("-", "", 10_000),
        nested("not ", "", 10_000),
        nested("1 + ", "", 10_000),
        nested("1 ~ ", "", 10_000),
        "{% if 1 %}".repeat(10_000),
        "{{ 10 ** 10 ** 10 }}".to_owned(),
        "{{ 7 ** 99999999999999 }}".to_owned(),
        "{{ range(10 ** 9) | list }}".to_owned(),
        "{% for i in range(10 ** 18) %}{% endfor %}".to_owned(),
        "{{ x[".to_owned() + &"x[".repeat(9999),
        "{{ {".to_owned() + &"1: {".repeat(9999),
        "{{ 1 if ".to_owned() + &"1 if ".repeat(9999),
    ];
    for source in hostile {
        let error = render(&source).expect_err(&source[..source.len().min(100)]);
        assert!(!matches!(error, TemplateError::OutOfFuel { .. }), "{error}");
    }
    // Just within the limits, on the small stack of a test's thread.
    for (open, close) in
        [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("1+", ""), ("1~", ""), ("1**", "")]
    {
        let _ = render(&nested(open, close, 1000 / (open.len() + close.len())));
    }
}

#[test]
fn what_python_has_is_there() {
    for (source, expected) in [
        (
            "{{ {'b': [1, 2.5, none, true], 'a': {}, 'c': []} | tojson }}",
            r#"{"b": [1, 2.5, null, true], "a": {}, "c": []}"#,
        ),
        ("{{ '<a href=\"x\">&é\\n' | tojson }}", r#""<a href=\"x\">&é\n""#),
        ("{{ 'é\u{1F30D}' | tojson(ensure_ascii=true) }}", r#""\u00e9\ud83c\udf0d""#),
        (
            "{{ {'a': [1, {}], 'b': []} | tojson(indent=2) }}",
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}",
        ),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ '<b>' }}{{ ' a '.strip() }}{{ 'ab'.startswith('a') }}", "<b>aTrue"),
        ("{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}\n", "user\n"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        (
            "{{ tools is none }}{{ nothing is defined }}{{ messages[0].tool_calls is defined }}",
            "TrueFalseFalse",
        ),
        ("{% generation %}x{% endgeneration %}", "x"),
        // What is added to the result of `safe` is escaped, and nothing else.
        ("  {{ '<'|safe + '\"/\\'>' }}\n{{ '<' ~ '>'|safe ~ '&' }}\n", "  <&#34;/&#39;&gt;\n<>&"),
        ("{% set x = '<' + '>'|safe %}\n{{- x }}", "&lt;>"),
        ("{{ [3, 1, 3] | map('abs') | unique | select | list | tojson }}", "[3, 1]"),
    ] {
        assert_eq!(render(source).expect(source), expected, "{source}");
    }
    let now = RenderOptions {
        now: Some("2026-01-02T03:04:05".parse().expect("a time")),
        ..RenderOptions::default()
    };
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y, %H:%M:%S %A %-d') }}").expect("valid");
    assert_eq!(template.render(&[], &now).expect("a time"), "02 Jan 2026, 03:04:05 Friday 2");
}

#[test]
fn errors_say_what_and_where() {
    let error = |source: &str| render(source).expect_err(source);
    assert!(matches!(error("{{ raise_exception('roles must alternate') }}"),
        TemplateError::Refused { message } if message == "roles must alternate"));
    let text = error("a\n{{ messages.foo.bar }}").to_string();
    assert!(text.contains("line 2"), "{text}");
    let text = error("{{ [1] | select | tojson }}").to_string();
    assert!(text.contains("| list"), "{text}");
    let text = error("a\n\n{% endif %}").to_string();
    assert!(text.contains("line 3") && text.contains("not valid"), "{text}");
    assert!(matches!(error("{{ strftime_now('%!') }}"), TemplateError::Failed { .. }));
}

#[test]
fn a_file_may_have_several_templates_or_none() {
    let Some(oracles) = Oracles::find() else { return };
    let templates = |name: &str| {
        let bytes = oracles.read(&format!("tokenizers/ggml-vocab-{name}.gguf"));
        ChatTemplate::from_gguf(&Gguf::parse(&bytes).expect("a valid file")).expect("valid templates")
    };
    assert!(templates("gpt-2").is_none());

    let template = templates("command-r").expect("templates");
    let mut names: Vec<_> = template.names().collect();
    names.sort_unstable();
    assert_eq!(names, ["default", "rag", "tool_use"]);
    let tool =
        serde_json::json!({"name": "look_up", "description": "Looks up.", "parameter_definitions": {}});
    let with_tools = RenderOptions { tools: vec![tool], ..RenderOptions::default() };
    let render = |options: &RenderOptions| template.render(&[Message::new("user", "Hi")], options);
    let plain = render(&RenderOptions::default()).expect("a text");
    assert!(plain.ends_with("Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"), "{plain}");
    assert!(!plain.contains("Available Tools"));
    let of_tools = render(&with_tools).expect("a text");
    assert!(of_tools.contains("Available Tools") && of_tools.contains("look_up"), "{of_tools}");
    let chosen = template.clone().choose("default").expect("a template of this name");
    let text = chosen.render(&[Message::new("user", "Hi")], &with_tools).expect("a text");
    assert!(!text.contains("Available Tools"), "{text}");
    assert!(template.choose("none").is_none());
}

/// The templates of a file that has these.
fn of_file(templates: &[(&str, &str)]) -> Option<ChatTemplate> {
    let mut file = GgufWriter::new();
    file.set("general.architecture", "llama").expect("a key");
    for (name, source) in templates {
        file.set(&format!("tokenizer.chat_template{name}"), *source).expect("a key");
    }
    let bytes = file.begin(Vec::new()).and_then(|file| file.finish()).expect("a file");
    ChatTemplate::from_gguf(&Gguf::parse(&bytes).expect("a valid file")).expect("valid templates")
}

#[test]
fn an_empty_template_is_none_and_a_single_one_is_for_all_uses() {
    assert!(of_file(&[("", "")]).is_none());
    assert!(of_file(&[("", " \n"), (".tool_use", "")]).is_none());

    let hello = [Message::new("user", "Hi")];
    let tools = RenderOptions { tools: vec![Value::Null], ..RenderOptions::default() };
    let both = |templates: &[(&str, &str)]| {
        let template = of_file(templates).expect("a template");
        [RenderOptions::default(), tools.clone()].map(|options| template.render(&hello, &options))
    };
    let text = |rendered: [Result<String, TemplateError>; 2]| rendered.map(|text| text.expect("a text"));
    assert_eq!(text(both(&[(".rag", "R")])), ["R", "R"]);
    assert_eq!(text(both(&[(".rag", "R"), ("", "")])), ["R", "R"]);
    assert_eq!(text(both(&[(".tool_use", "T"), ("", "D")])), ["D", "T"]);
    let [without, with] = both(&[(".rag", "R"), (".tool_use", "T")]);
    assert_eq!(with.expect("a text"), "T");
    assert!(matches!(&without, Err(TemplateError::NoDefault { names }) if names == &["rag", "tool_use"]));
    assert!(without.expect_err("no default").to_string().contains("rag, tool_use"));
}

#[test]
fn a_time_is_there_if_one_is_given() {
    let template =
        ChatTemplate::new("{{ strftime_now('%Y') if strftime_now is defined else '2024' }}").expect("valid");
    assert_eq!(template.render(&[], &RenderOptions::default()).expect("a text"), "2024");
}
