//! Answers in pieces of every size.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::families::SECTIONS;
use super::form::Controls;
use super::section::Section;
use super::splitter::{AnswerSplitter, Role, Segment};
use super::{Answer, AnswerFormat, Part, ToolCall};

/// What Llama 3 is told of calls, where there are tools.
const LLAMA: &str = "Respond in the format {\"name\": function name, \"parameters\": …}";

/// The answer that the pieces give, each malformed call as content.
fn split(format: &AnswerFormat, prompt: &str, pieces: &[&str]) -> Answer {
    let mut splitter = format.splitter(prompt);
    let mut answer = Answer::default();
    let parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
    parts.into_iter().chain(splitter.finish()).for_each(|part| answer.push(part));
    answer
}

/// The answer's parts, the same for every place that it can be cut at.
fn check(sign: &str, prompt: &str, text: &str) -> Answer {
    let format = AnswerFormat::of_template(sign);
    let whole = split(&format, prompt, &[text]);
    for (at, _) in text.char_indices() {
        assert_eq!(split(&format, prompt, &[&text[..at], &text[at..]]), whole, "cut at {at}: {text}");
    }
    let letters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
    assert_eq!(split(&format, prompt, &letters), whole, "letter by letter: {text}");
    whole
}

fn calls(answer: &Answer) -> Vec<(Option<&str>, &str, Value)> {
    let call = |call: &'_ super::ToolCall| Value::Object(call.arguments.clone());
    answer.tool_calls.iter().map(|c| (c.id.as_deref(), c.name.as_str(), call(c))).collect()
}

#[test]
fn a_thought_that_the_prompt_opens_ends_though_the_template_does_not_say_how() {
    for section in SECTIONS.iter().filter(|section| section.is_thought()) {
        let prompt = format!("<|im_start|>assistant\n{}\n", section.open);
        let answer = check("<|im_start|>", &prompt, &format!("Why?{}So.", section.close[0]));
        assert_eq!((&answer.reasoning[..], &answer.content[..]), ("Why?", "So."), "{}", section.open);
    }
    // Some write the end of another family.
    for (open, close) in [("<|think|>", "<|/think|>"), ("<|think|>", "</think>"), ("<|think|>", "<|end|>")] {
        let answer = check("<|im_start|>", open, &format!("Why?{close}So."));
        assert_eq!((&answer.reasoning[..], &answer.content[..]), ("Why?", "So."), "{open} {close}");
    }
    // What the prompt does not open is text, and so is all that follows a text without a template.
    let answer = check("<|im_start|>", "<|im_start|>assistant\n", "<think>Why?</think>So.");
    assert_eq!(answer.content, "<think>Why?</think>So.");
    let answer = split(&AnswerFormat::default(), "<think>", &["Why?</think>So."]);
    assert_eq!(answer.content, "Why?</think>So.");
}

#[test]
fn reasoning_is_told_from_content() {
    for (sign, prompt, text) in [
        ("</think>", "", "<think>\nWhy?\n</think>\n\nSo."),
        ("</think>", "<|im_start|>assistant\n<think>\n", "Why?</think>So."),
        ("</thinking>", "", "<thinking>Why?</thinking>So."),
        ("</reasoning>", "", "<reasoning>Why?</reasoning>So."),
        ("</thought>", "", "<thought>\nWhy?</thought>\nSo."),
        ("<|begin_of_thought|>", "", "<|begin_of_thought|>Why?<|end_of_thought|>So."),
        (
            "<|begin_of_thought|><|begin_of_solution|>",
            "<|begin_of_thought|>\n",
            "Why?\n<|end_of_thought|>\n<|begin_of_solution|>So.<|end_of_solution|>",
        ),
        ("<seed:think>", "", "<seed:think>Why?</seed:think>So."),
        ("[THINK]", "[/INST]", "[THINK]Why?[/THINK]So."),
        ("<|inner_prefix|>", "", "<|inner_prefix|>Why?<|inner_suffix|>So."),
        ("<|channel>", "<|turn>model\n", "<|channel>thought\nWhy?<channel|>So."),
        (
            "Here are my reasoning steps:",
            "\nHere are my reasoning steps:\n",
            "Why?\n[BEGIN FINAL RESPONSE]\nSo.",
        ),
        (
            "<|START_THINKING|><|START_RESPONSE|>",
            "<|CHATBOT_TOKEN|>",
            "<|START_THINKING|>Why?<|END_THINKING|><|START_RESPONSE|>So.<|END_RESPONSE|>",
        ),
        (
            "<|channel|>",
            "<|message|>Hi<|end|><|start|>assistant",
            "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>final<|message|>So.",
        ),
        ("<|tool_calls|>", "", "<|think|>Why?<|end|><|begin|>assistant<|content|>So."),
        (
            "'<|open|>'",
            "<|open|>think<|sep|>",
            "Why?<|close|>think<|sep|><|open|>response<|sep|>So.<|close|>response<|sep|>\
             <|close|>message<|sep|>",
        ),
    ] {
        let answer = check(sign, prompt, text);
        let expected = Answer { reasoning: "Why?".into(), content: "So.".into(), tool_calls: vec![] };
        assert_eq!(answer, expected, "{text}");
    }
}

#[test]
fn what_the_prompt_has_closed_is_closed() {
    for prompt in ["<think>\n</think>", "<think>\n\n</think>\n\n", "the mark <think> is", ""] {
        let answer = check("</think>", prompt, " So </thin. ");
        assert_eq!((answer.reasoning.as_str(), answer.content.as_str()), ("", " So </thin. "));
    }
    for text in ["</think>\n\nSo.", "\n</think>So."] {
        assert_eq!(check("</think>", "", text).content, "So.");
    }
    // No marker is known: nothing is held back.
    assert_eq!(
        AnswerFormat::default().splitter("").push("a <think> \n"),
        [Part::Content("a <think> \n".into())]
    );
    // It never closes.
    assert_eq!(check("</think>", "", "<think>Why").reasoning, "Why");
}

#[test]
fn calls_are_parsed() {
    let paris = json!({"city": "Paris"});
    let nested = json!({"city": "</tool_call> \"x\"", "n": [1, {"a": true}]});
    for (sign, prompt, text, expected) in [
        (
            "<tool_call>",
            "",
            "Let me see:\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n\
             <tool_call>{\"name\": \"b\", \"arguments\": {\"city\": \"</tool_call> \\\"x\\\"\", \"n\": [1, {\"a\": \
             true}]}}</tool_call>",
            vec![(None, "a", paris.clone()), (None, "b", nested.clone())],
        ),
        (
            "<tool_call>",
            "",
            "<tool_call>\n<function=a>\n<parameter=text>\n1 < 2\n\n</parameter>\n<parameter=n>\n3\n</parameter>\n\
             <parameter=yes>True</parameter>\n</function>\n</tool_call>",
            vec![(None, "a", json!({"text": "1 < 2\n", "n": 3, "yes": true}))],
        ),
        (
            "<tool_call>",
            "",
            "<tool_call>a\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>n</arg_key>\n\
             <arg_value>[1]</arg_value>\n</tool_call><tool_call>now</tool_call>",
            vec![(None, "a", json!({"city": "Paris", "n": [1]})), (None, "now", json!({}))],
        ),
        (
            LLAMA,
            LLAMA,
            "\n{\"name\": \"a\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\": \"b\", \"parameters\": {}}",
            vec![(None, "a", paris.clone()), (None, "b", json!({}))],
        ),
        (
            "<|python_tag|>",
            "",
            "<|python_tag|>brave_search.call(query=\"it's\\n\")",
            vec![(None, "brave_search", json!({"query": "it's\n"}))],
        ),
        (
            "[TOOL_CALLS]",
            "",
            "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"123456789\"}]",
            vec![(Some("123456789"), "a", paris.clone())],
        ),
        (
            "[TOOL_CALLS]",
            "",
            "[TOOL_CALLS]a[CALL_ID]123456789[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]b[ARGS]{}",
            vec![(Some("123456789"), "a", paris.clone()), (None, "b", json!({}))],
        ),
        (
            "<｜tool▁calls▁begin｜>",
            "",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>a\n```json\n{\"city\": \"Paris\"}\n```\
             <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>b\n```json\n{}\n```<｜tool▁call▁end｜>\
             <｜tool▁calls▁end｜>",
            vec![(None, "a", paris.clone()), (None, "b", json!({}))],
        ),
        (
            "｜DSML｜",
            "",
            "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"a\">\n<｜DSML｜parameter name=\"zip\" string=\"true\">75001\
             </｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">[1]</｜DSML｜parameter>\n\
             </｜DSML｜invoke>\n</｜DSML｜function_calls>",
            vec![(None, "a", json!({"zip": "75001", "n": [1]}))],
        ),
        (
            "<|channel|>",
            "<|start|>assistant",
            "<|channel|>commentary<|message|>A moment.<|end|><|start|>assistant<|channel|>commentary \
             to=functions.a <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>",
            vec![(None, "a", paris.clone())],
        ),
        (
            "<|tool_call>",
            "",
            "<|tool_call>call:a{city:<|\"|>Paris<|\"|>,n:[1,{x:true}],s:<|\"|>a}b<|\"|>}<tool_call|>",
            vec![(None, "a", json!({"city": "Paris", "n": [1, {"x": true}], "s": "a}b"}))],
        ),
        (
            "<|tool_call_start|>",
            "",
            "<|tool_call_start|>[a(city='Paris'), b(x={'k': None}, y=[1.5, -2])]<|tool_call_end|>",
            vec![(None, "a", paris.clone()), (None, "b", json!({"x": {"k": null}, "y": [1.5, -2]}))],
        ),
        (
            "<|tool_calls_section_begin|>",
            "",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.a:0<|tool_call_argument_begin|>{\"city\": \
             \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>",
            vec![(Some("functions.a:0"), "a", paris.clone())],
        ),
        (
            "Action:\\n```json",
            "",
            "Plan: a\nAction: ```json\n[\n {\"tool_name\": \"a\", \"parameters\": {\"city\": \"Paris\"}}\n]```",
            vec![(None, "a", paris.clone())],
        ),
    ] {
        assert_eq!(calls(&check(sign, prompt, text)), expected, "{text}");
    }
}

/// What is told of calls before their ends: the name of each, and its arguments.
fn told(sign: &str, pieces: &[&str]) -> (Vec<(String, String)>, Vec<ToolCall>) {
    let mut splitter = AnswerFormat::of_template(sign).splitter(sign);
    let (mut told, mut calls) = (Vec::<(String, String)>::new(), Vec::new());
    let parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
    for part in parts.into_iter().chain(splitter.finish()) {
        match part {
            Part::CallBegun { name, .. } => told.push((name, String::new())),
            Part::CallArguments(json) => told.last_mut().unwrap().1.push_str(&json),
            Part::ToolCall(call) => calls.push(call),
            _ => {}
        }
    }
    (told, calls)
}

#[test]
fn arguments_that_are_json_come_as_they_are_written() {
    for (sign, text) in [
        (
            "<tool_call>",
            "So:<tool_call>\n{\"name\": \"a\", \"arguments\": {\"t\": \"}</tool_call> \\\"é\", \"n\": [1, {}]}}\n\
             </tool_call>\n<tool_call>{\"name\": \"b\", \"arguments\": {}}</tool_call>",
        ),
        (
            "[TOOL_CALLS]",
            "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {\"t\": \"[]\"}, \"id\": \"abc\"}, {\"name\": \"b\", \
             \"arguments\": {\"x\": 1}}]",
        ),
        ("[TOOL_CALLS]", "[TOOL_CALLS]a[CALL_ID]abc[ARGS]{\"x\": {\"y\": 1}}[TOOL_CALLS]b[ARGS]{}"),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>a\n```json\n{\"x\": 1}\n```<｜tool▁call▁end｜>\n\
             <｜tool▁call▁begin｜>function<｜tool▁sep｜>b\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.a:0<|tool_call_argument_begin|>{\"x\": 1}\
             <|tool_call_end|><|tool_call_begin|>functions.b:1<|tool_call_argument_begin|>{}<|tool_call_end|>\
             <|tool_calls_section_end|>",
        ),
        ("<function=", "<function=a>{\"x\": 1}</function><function=b>{}</function>"),
    ] {
        let letters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        let cuts = text.char_indices().map(|(at, _)| vec![&text[..at], &text[at..]]);
        for pieces in cuts.chain([vec![text], letters]) {
            let (told, calls) = told(sign, &pieces);
            let whole: Vec<_> =
                calls.iter().map(|call| (&*call.name, Value::Object(call.arguments.clone()))).collect();
            let told: Vec<_> =
                told.iter().map(|(name, json)| (&**name, serde_json::from_str(json).unwrap())).collect();
            assert_eq!(whole.iter().map(|call| call.0).collect::<Vec<_>>(), ["a", "b"], "{text}");
            assert_eq!(told, whole, "{text}");
        }
    }
    // Before its end, what is written so may be no call, or no JSON.
    for (sign, text) in [
        (LLAMA, "{\"name\": \"a\", \"parameters\": {\"x\": 1}}"),
        ("<tool_call>", "<tool_call><function=a><parameter=x>{}</parameter></function></tool_call>"),
        ("<tool_call>", "<tool_call>{\"arguments\": {\"x\": 1}, \"name\": \"a\"}</tool_call>"),
        ("<tool_call>", "<tool_call>{\"name\": \"a\", \"arguments\": \"{}\"}</tool_call>"),
    ] {
        let letters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        let (told, calls) = told(sign, &letters);
        assert_eq!((told.len(), calls.len()), (0, 1), "{text}");
    }
}

#[test]
fn a_call_that_cannot_be_read_stays_as_it_is() {
    for (sign, text) in [
        ("<tool_call>", "a <tool_call>{\"name\": \"a\", \"argu</tool_call> b <tool_call>"),
        ("<tool_call>", "<tool_call>{\"name\": \"a\"}</tool_call>"),
        ("<tool_call>", "<tool_call>[3]</tool_call>"),
        // They have begun.
        ("<tool_call>", "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": oops</tool_call> b"),
        ("<tool_call>", "<tool_call>{\"name\": \"a\", \"arguments\": {}, oops</tool_call> b"),
        ("<tool_call>", "<tool_call>{\"name\": \"a\", \"arguments\": {\"x\": \"é</tool_call>"),
        ("<tool_call>", "<tool_call>not a name</tool_call>"),
        ("<|tool_call>", "<|tool_call>call:a{city:Paris}<tool_call|>"),
        ("<|tool_call>", "<|tool_call>call:a{city:[[<tool_call|>"),
        ("<|tool_call_start|>", "<|tool_call_start|>[a(x='\\u12')]<|tool_call_end|>"),
        ("<|channel|>", "<|channel|>final"),
        ("[TOOL_CALLS]", "[TOOL_CALLS]a[ARGS]"),
        ("｜DSML｜", "<｜DSML｜function_calls><｜DSML｜invoke name=\"a\">"),
    ] {
        let answer = check(sign, "", text);
        let told: String = answer.content.split_whitespace().collect();
        assert_eq!(told, text.split_whitespace().collect::<String>());
        assert_eq!(calls(&answer), []);
    }
    let mut splitter = AnswerFormat::of_template("<tool_call>").splitter("");
    let parts = splitter.push("<tool_call>{\"name\": 3}</tool_call>");
    let [Part::Malformed(call)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!(call.text, "<tool_call>{\"name\": 3}</tool_call>");
    assert!(call.to_string().contains("arguments"), "{call}");
    // What may be all of an answer need not be a call, and without tools it is none.
    let text = "{\"name\": \"Bob\", \"age\": 3}";
    assert_eq!(check(LLAMA, LLAMA, text).content, text);
    let text = "{\"name\": \"a\", \"parameters\": {}}";
    assert_eq!(check(LLAMA, "", text).content, text);
    // What has no end is no header.
    let endless = format!("<|start|>{}<|message|>", "a".repeat(600));
    assert_eq!(check("<|channel|>", "", &endless).content, endless);
    // Deep nesting is no danger to the stack.
    let deep = format!("<|tool_call>call:a{{x:{}", "[".repeat(100_000));
    assert_eq!(check_once("<|tool_call>", &deep).content, deep);
}

fn check_once(sign: &str, text: &str) -> Answer {
    split(&AnswerFormat::of_template(sign), "", &[text])
}

#[test]
fn an_answer_becomes_a_message() {
    let answer = check(
        "</think><tool_call>",
        "",
        "<think>Hm</think>So.<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>",
    );
    let message = serde_json::to_value(answer.into_message()).unwrap();
    assert_eq!(
        message,
        json!({
            "role": "assistant",
            "content": "So.",
            "tool_calls": [{"type": "function", "function": {"name": "a", "arguments": {}}}],
            "reasoning_content": "Hm",
        })
    );
    assert_eq!(
        Answer { content: "Hi".into(), ..Answer::default() }.into_message(),
        crate::text::Message::new("assistant", "Hi")
    );
}

/// Whether a grammar derives these tokens: the texts of control tokens, and every other text byte by byte.
fn derives(grammar: &str, controls: &[(String, u32)], pieces: &[&str]) -> Result<(), String> {
    const END: u32 = 256;
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    // What marks control tokens is no text's byte.
    words[255] = b"\xfe\xfe\xfe".to_vec();
    words.push(b"\xff<end>".to_vec());
    words.extend(controls.iter().map(|(text, _)| [b"\xff", text.as_bytes()].concat()));
    let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, END), &words);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).unwrap();
    factory.quiet();
    let mut matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar.to_owned())));
    if let Some(error) = matcher.get_error() {
        return Err(error);
    }
    let tokens = |piece: &&str| -> Vec<u32> {
        let control = controls.iter().find(|(text, _)| text == piece);
        control.map_or_else(|| piece.bytes().map(u32::from).collect(), |(_, id)| vec![*id])
    };
    let tokens: Vec<u32> = pieces.iter().flat_map(tokens).collect();
    match matcher.try_consume_tokens(&tokens) {
        Ok(n) if n == tokens.len() && matcher.is_accepting().unwrap_or(false) => Ok(()),
        found => Err(format!("{found:?} of {} in {pieces:?}", tokens.len())),
    }
}

#[test]
fn markers_that_are_control_tokens_are_tokens_of_a_form() {
    let names = ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"];
    let names = names.into_iter().chain(["<|channel|>", "<|message|>", "<|end|>", "<|start|>"]);
    let controls: Vec<(String, u32)> = names.map(str::to_owned).zip(257..).collect();
    let tools = [json!({"type": "function", "function": {"name": "a", "parameters": {"type": "object"}}})];
    let mistral = "[TOOL_CALLS][THINK][/THINK]";
    let newer = "[TOOL_CALLS][ARGS][THINK][/THINK]";
    let call = "{\"name\": \"a\", \"arguments\": {\"x\": 1}}";
    let list = &format!("[{call}]")[..];
    let to_a = "commentary to=functions.a json";
    for (sign, prompt, pieces, is_one) in [
        (mistral, "", &["[TOOL_CALLS]", list][..], true),
        (mistral, "", &["[THINK]", "Why?", "[/THINK]", "[TOOL_CALLS]", list], true),
        (mistral, "[THINK]", &["Why?", "[/THINK]", "\n", "[TOOL_CALLS]", list], true),
        (newer, "", &["[TOOL_CALLS]", "a", "[ARGS]", "{}"], true),
        (newer, "", &["[TOOL_CALLS]", "a", "[ARGS]", "{}", "[TOOL_CALLS]", "a", "[ARGS]", "{}"], false),
        ("<|channel|>", "<|start|>assistant", &["<|channel|>", to_a, "<|message|>", "{}"], true),
        (
            "<|channel|>",
            "<|start|>assistant",
            &[
                "<|channel|>",
                "analysis",
                "<|message|>",
                "Why?",
                "<|end|>",
                "<|start|>",
                "assistant",
                "<|channel|>",
                to_a,
                "<|message|>",
                "{}",
            ],
            true,
        ),
    ] {
        let format = AnswerFormat::of_template(sign);
        let grammar = |only_one: bool| {
            let controls = Controls { texts: controls.clone(), ends: Vec::new() };
            format.grammar(prompt, controls, &tools, only_one).unwrap()
        };
        assert_eq!(derives(&grammar(false), &controls, pieces), Ok(()), "{sign}");
        assert_eq!(derives(&grammar(true), &controls, pieces).is_ok(), is_one, "{pieces:?}");
        // The same as mere text is none.
        let text = pieces.concat();
        let letters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        assert!(derives(&grammar(false), &controls, &letters).is_err(), "{text}");
        assert!(derives(&grammar(false), &controls, &["So."]).is_err());
        assert!(!check(sign, prompt, &text).tool_calls.is_empty(), "{text}");
    }
}

/// The sections of some families, and a text made of what their markers are made of.
fn answers() -> impl Strategy<Value = (Vec<&'static Section>, Vec<String>)> {
    let section = (0..SECTIONS.len()).prop_map(|at| &SECTIONS[at]);
    proptest::collection::vec(section, 1..5).prop_flat_map(|sections| {
        let of_sections = |section: &&'static Section| {
            [section.open].into_iter().chain(section.close.iter().copied()).collect::<Vec<_>>()
        };
        let mut markers: Vec<&str> = sections.iter().flat_map(of_sections).collect();
        markers.extend([
            "<|end|>",
            "to=a",
            "analysis",
            "</parameter>",
            "</function>",
            "<parameter=x>",
            "[ARGS]",
        ]);
        let marker = proptest::sample::select(markers);
        let piece = prop_oneof![
            4 => marker.clone().prop_map(str::to_owned),
            1 => (marker, 0..40usize).prop_map(|(marker, n)| marker.chars().take(n).collect()),
            1 => "[ \n]{1,3}",
            1 => ".{0,20}",
            1 => Just("a".repeat(300)),
            1 => "[a-zé<|>{}\\[\\]\"']{0,8}",
            2 => Just("{\"name\": \"a\", \"arguments\": {}}".to_owned()),
            1 => Just("{\"name\": \"a".to_owned()),
        ];
        (Just(sections), proptest::collection::vec(piece, 0..12))
    })
}

/// Segments, those of the same kind that follow each other joined.
fn joined(mut splitter: AnswerSplitter, pieces: &[&str]) -> Vec<(String, String)> {
    let mut segments: Vec<Segment> = pieces.iter().flat_map(|piece| splitter.split(piece, false)).collect();
    segments.extend(splitter.split("", true));
    let mut joined: Vec<(String, String)> = Vec::new();
    for Segment { text, role } in segments {
        if matches!(role, Role::News(_)) {
            continue; // when it comes depends on the pieces
        }
        let is_text = matches!(role, Role::Content | Role::Reasoning | Role::Marker);
        match joined.last_mut() {
            Some((before, last)) if is_text && *last == format!("{role:?}") => before.push_str(&text),
            _ => joined.push((text, format!("{role:?}"))),
        }
    }
    joined
}

proptest! {
    #[test]
    fn nothing_is_lost_however_an_answer_is_cut((sections, pieces) in answers()) {
        let prompt: String = sections.iter().map(|section| section.sign).collect();
        let format = AnswerFormat { sections, others: &[], calls: None };
        let text = pieces.concat();
        let whole = joined(format.splitter(&prompt), &[&text]);
        prop_assert_eq!(whole.iter().map(|(text, _)| text.as_str()).collect::<String>(), text.clone());
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        prop_assert_eq!(&joined(format.splitter(&prompt), &pieces), &whole);
        let letters: Vec<&str> = text.split_inclusive(|_: char| true).collect();
        prop_assert_eq!(&joined(format.splitter(&prompt), &letters), &whole);
    }
}
