//! What is found in an answer against what published chat templates write for a message of the assistant.

use std::collections::BTreeSet;

use metallic::text::{Answer, ChatTemplate, Message, RenderOptions, ToolCall};
use serde_json::{Value, json};

use crate::oracles::Oracles;

const TOOL: &str = "get_weather";

/// The published templates.
fn templates(oracles: &Oracles) -> Vec<String> {
    let folder = std::fs::read_dir(oracles.path("chat_templates")).expect("the oracles' templates");
    let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut files: Vec<String> =
        names.filter(|name| name.ends_with(".jinja")).map(|name| format!("chat_templates/{name}")).collect();
    files.sort();
    files
}

fn message(value: Value) -> Message {
    serde_json::from_value(value).expect("a message")
}

fn arguments(rich: bool) -> Value {
    if rich {
        json!({"city": "L'Aquila\n\"<b>\"", "days": 3, "exact": true, "at": [1.5, {"x": ["a", null]}]})
    } else {
        json!({"city": "Paris"})
    }
}

/// What a model says to call tools `n` times, as its template writes it, and the prompt that it says it to.
fn calls(
    template: &ChatTemplate,
    n: usize,
    rich: bool,
    arguments_are_text: bool,
) -> Option<(String, String)> {
    let given = arguments(rich);
    let given = if arguments_are_text { Value::String(given.to_string()) } else { given };
    let call = |i: usize| json!({"id": format!("abcd1234{i}"), "type": "function", "function": {"name": TOOL, "arguments": given}});
    let calls: Vec<Value> = (0..n).map(call).collect();
    said(template, json!({"role": "assistant", "content": "", "tool_calls": calls}))
}

/// What a template writes for a message of the assistant, from the prompt to the end of the turn.
fn said(template: &ChatTemplate, answer: Value) -> Option<(String, String)> {
    let user = message(json!({"role": "user", "content": "Weather in Paris?"}));
    let schema =
        json!({"type": "object", "properties": {"city": {"type": "string", "description": "a city"}}});
    let tool = json!({"type": "function", "function": {"name": TOOL, "description": "Weather", "parameters": schema}});
    let render = |answer: Option<Value>, thinks: bool| {
        let mut options = RenderOptions { tools: vec![tool.clone()], ..RenderOptions::default() };
        options.add_generation_prompt = answer.is_none();
        for name in ["enable_thinking", "thinking"] {
            options.variables.insert(name.to_owned(), Value::Bool(thinks));
        }
        options.variables.insert("functions".to_owned(), Value::String("none".to_owned()));
        let messages: Vec<Message> = [user.clone()].into_iter().chain(answer.map(message)).collect();
        template.render(&messages, &options).ok()
    };
    for thinks in [true, false] {
        let (Some(prompt), Some(whole)) = (render(None, thinks), render(Some(answer.clone()), thinks)) else {
            continue;
        };
        // The end of a turn is what it is after plain content, too.
        let plain =
            render(Some(json!({"role": "assistant", "content": "XYZZY"})), thinks).unwrap_or_default();
        let end = plain.rsplit_once("XYZZY").map_or("", |(_, end)| end);
        if let Some(said) = whole.strip_prefix(&prompt) {
            return Some((prompt, said.strip_suffix(end).unwrap_or(said).to_owned()));
        }
    }
    None
}

fn understood(template: &ChatTemplate, prompt: &str, said: &str) -> Answer {
    let format = template.answer_format();
    let mut answer = Answer::default();
    let mut splitter = format.splitter(prompt);
    splitter.push(said).into_iter().chain(splitter.finish()).for_each(|part| answer.push(part));
    answer
}

#[test]
fn calls_are_read_as_templates_write_them() {
    let Some(oracles) = Oracles::find() else { return };
    for n in [1, 2] {
        for rich in [false, true] {
            let mut missed = BTreeSet::new();
            let mut silent = BTreeSet::new();
            for file in templates(&oracles) {
                let template = ChatTemplate::new(&String::from_utf8(oracles.read(&file)).expect("UTF-8"))
                    .expect("valid");
                let name = file.trim_start_matches("chat_templates/").trim_end_matches(".jinja");
                let texts = [false, true].map(|are_text| calls(&template, n, rich, are_text));
                let Some(texts) =
                    texts.into_iter().flatten().find(|(_, said)| said.contains(TOOL)).map(|t| vec![t])
                else {
                    silent.insert(name.to_owned());
                    continue;
                };
                let expected: Vec<_> = (0..n).map(|_| (TOOL.to_owned(), arguments(rich))).collect();
                let read = texts.iter().any(|(prompt, said)| {
                    let answer = understood(&template, prompt, said);
                    let found: Vec<_> = answer
                        .tool_calls
                        .iter()
                        .map(|ToolCall { name, arguments, .. }| {
                            (name.clone(), Value::Object(arguments.clone()))
                        })
                        .collect();
                    found == expected
                });
                if !read {
                    missed.insert(name.to_owned());
                    let a = understood(&template, &texts[0].0, &texts[0].1);
                    println!("{n} {rich} {name}: {:?}\n    {a:?}", texts[0].1);
                }
            }
            println!("n={n} rich={rich} missed {missed:?}\n silent {silent:?}");
        }
    }
}
