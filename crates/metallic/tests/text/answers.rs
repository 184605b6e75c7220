//! What is found in an answer against what published chat templates write for a message of the assistant.

use std::collections::{BTreeMap, BTreeSet};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv};
use llguidance::{Matcher, ParserFactory};
use metallic::testing;
use metallic::text::{Answer, ChatTemplate, Message, RenderOptions, Tokenizer};
use metallic_gguf::Gguf;
use serde_json::{Value, json};

use crate::oracles::Oracles;

const TOOL: &str = "get_weather";
const THOUGHT: &str = "They ask about the weather.";

/// Templates that write no call of a tool, or refuse to.
const WITHOUT_CALLS: [&str; 10] = [
    "HuggingFaceTB-SmolLM3-3B",
    "Kimi-K2-Instruct", // appends to a list, which fails in Python, too
    "Kimi-K2-Thinking", // likewise
    "LFM2-8B-A1B",
    "LFM2.5-Instruct",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "llama-cpp-deepseek-r1", // fails where there are tools, as in Python
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
];

/// Templates that write one call, however many there are, or refuse several.
const WITH_ONE_CALL: [&str; 6] = [
    "GigaChat3-10B-A1.8B",
    "GigaChat3.1-10B-A1.8B",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "meta-llama-Llama-3.3-70B-Instruct",
    "openai-gpt-oss-120b",
];

/// Calls that are not understood, and why.
const NOT_UNDERSTOOD: [(&str, &str); 2] = [
    ("MiniMax-M3", "a list or an object in arguments is tags within tags: it stays text"),
    (
        "meetkai-functionary-medium-v3.2",
        "a call has no marker of its own: the prompt ends with that of any answer",
    ),
];

/// A template that opens reasoning in the prompt, but leaves the opening out of earlier turns.
const LATER_WITHOUT_OPENING: &str = "Apriel-1.6-15b-Thinker-fixed";

/// The published templates by name.
fn templates(oracles: &Oracles) -> BTreeMap<String, ChatTemplate> {
    let folder = std::fs::read_dir(oracles.path("chat_templates")).expect("the oracles' templates");
    let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let template = |file: String| {
        let name = file.strip_suffix(".jinja")?.to_owned();
        let source = String::from_utf8(oracles.read(&format!("chat_templates/{file}"))).expect("UTF-8");
        Some((name, ChatTemplate::new(&source).expect("a valid template")))
    };
    names.filter_map(template).collect()
}

/// An answer as a template writes it.
struct Said {
    prompt: String,
    text: String,
}

fn render(template: &ChatTemplate, answer: Option<&Value>, thinks: bool) -> Option<String> {
    let parameters =
        json!({"type": "object", "properties": {"city": {"type": "string", "description": "a city"}}});
    let function = json!({"name": TOOL, "description": "Weather", "parameters": parameters});
    let variables = json!({"enable_thinking": thinks, "thinking": thinks, "functions": "", "datetime": ""});
    let options = RenderOptions {
        tools: vec![json!({"type": "function", "function": function})],
        add_generation_prompt: answer.is_none(),
        variables: variables.as_object().cloned().unwrap_or_default(),
        now: Some("2026-01-02T03:04:05".parse().expect("a time")),
        ..RenderOptions::default()
    };
    let user = json!({"role": "user", "content": "Weather in Paris?"});
    let messages = [Some(&user), answer].into_iter().flatten().cloned();
    let messages = messages.map(|message| serde_json::from_value(message).expect("a message"));
    template.render(&messages.collect::<Vec<Message>>(), &options).ok()
}

/// What a template writes for a message of the assistant, from the prompt to the end of the turn, if that has
/// `part` in it.
fn said(template: &ChatTemplate, message: &Value, part: &str) -> Option<Said> {
    let written = |thinks: bool| {
        let (prompt, whole) = (render(template, None, thinks)?, render(template, Some(message), thinks)?);
        // The end of a turn is what comes after plain content, too.
        let plain = render(template, Some(&json!({"role": "assistant", "content": "XYZZY"})), thinks);
        let end = plain.as_deref().and_then(|text| text.rsplit_once("XYZZY")).map_or("", |(_, end)| end);
        Some((prompt, whole.strip_suffix(end).unwrap_or(&whole).to_owned()))
    };
    let written: Vec<_> = [true, false].into_iter().filter_map(written).collect();
    let as_prompted = written.iter().find_map(|(prompt, whole)| {
        let text = whole.strip_prefix(prompt.as_str())?;
        Some(Said { prompt: prompt.clone(), text: text.to_owned() })
    });
    // Some templates write an earlier turn otherwise than they prompt for one: from where the two part, it is
    // the answer.
    let otherwise = || {
        let (prompt, whole) = written.first()?;
        let same: usize =
            prompt.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
        let in_marker = whole[..same].rfind('<').filter(|&at| !whole[at..same].contains('>'));
        let (prompt, text) = whole.split_at(in_marker.unwrap_or(same));
        Some(Said { prompt: prompt.to_owned(), text: text.to_owned() })
    };
    as_prompted.or_else(otherwise).filter(|said| said.text.contains(part))
}

fn understood(template: &ChatTemplate, said: &Said) -> Answer {
    let mut splitter = template.answer_format().splitter(&said.prompt);
    let mut answer = Answer::default();
    let parts = said.text.char_indices().flat_map(|(at, c)| splitter.push(&said.text[at..at + c.len_utf8()]));
    let parts: Vec<_> = parts.collect();
    parts.into_iter().chain(splitter.finish()).for_each(|part| answer.push(part));
    answer
}

/// A message that calls the tool with each of some arguments. Templates differ in whether they take arguments
/// as an object or as text, and calls beside empty content or beside none.
fn calling(arguments: &[Value]) -> impl Iterator<Item = Value> {
    [(json!(""), false), (json!(""), true), (json!(null), false), (json!(null), true)].into_iter().map(
        |(content, as_text)| {
            let call = |(i, given): (usize, &Value)| {
                let given = if as_text { json!(given.to_string()) } else { given.clone() };
                json!({"id": format!("abcd1234{i}"), "type": "function", "function": {"name": TOOL, "arguments": given}})
            };
            let calls: Vec<Value> = arguments.iter().enumerate().map(call).collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        },
    )
}

/// What becomes of a message that calls the tool.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Unwritten,
    OneWritten,
    Read,
    Missed,
}

fn read_back(template: &ChatTemplate, arguments: &[Value]) -> Outcome {
    let sayings: Vec<Said> =
        calling(arguments).filter_map(|message| said(template, &message, TOOL)).collect();
    let is_read = |said: &Said| {
        let calls = understood(template, said).tool_calls.into_iter();
        let found = calls.map(|call| (call.name, Value::Object(call.arguments)));
        found.eq(arguments.iter().map(|given| (TOOL.to_owned(), given.clone())))
    };
    let has_last = |said: &Said| said.text.contains("Paris") || arguments.len() < 2;
    if sayings.iter().any(is_read) {
        Outcome::Read
    } else if arguments.len() < 2 && sayings.is_empty() {
        Outcome::Unwritten
    } else if !sayings.iter().any(has_last) {
        Outcome::OneWritten
    } else {
        println!("{:?}: {:?}", sayings[0].text, understood(template, &sayings[0]));
        Outcome::Missed
    }
}

#[test]
fn calls_are_read_as_templates_write_them() {
    let Some(oracles) = Oracles::find() else { return };
    let plain = json!({"city": "Paris"});
    let rich =
        json!({"city": "L'Aquila\n\"<b>\"", "days": 3, "exact": true, "at": [1.5, {"x": ["a", false]}]});
    let templates = templates(&oracles);
    let mut outcomes: BTreeMap<Outcome, BTreeSet<&str>> = BTreeMap::new();
    let mut n_read = 0;
    for (name, template) in &templates {
        for given in [vec![plain.clone()], vec![rich.clone()], vec![rich.clone(), plain.clone()]] {
            let outcome = read_back(template, &given);
            n_read += usize::from(outcome == Outcome::Read);
            outcomes.entry(outcome).or_default().insert(name);
        }
    }
    let of = |outcome| outcomes.get(&outcome).cloned().unwrap_or_default();
    println!("calls of {} templates read in {n_read} texts", of(Outcome::Read).len());
    assert_eq!(of(Outcome::Missed), NOT_UNDERSTOOD.map(|(name, _)| name).into());
    assert_eq!(of(Outcome::Unwritten), WITHOUT_CALLS.into());
    assert_eq!(&of(Outcome::OneWritten) - &of(Outcome::Unwritten), WITH_ONE_CALL.into());
}

#[test]
fn reasoning_is_found_where_templates_write_it() {
    let Some(oracles) = Oracles::find() else { return };
    let message = json!({
        "role": "assistant", "content": "It rains.",
        "reasoning_content": THOUGHT, "reasoning": THOUGHT, "thinking": THOUGHT, "thought": THOUGHT,
    });
    let mut n_found = 0;
    for (name, template) in &templates(&oracles) {
        let Some(said) = said(template, &message, THOUGHT) else { continue };
        let answer = understood(template, &said);
        if name == LATER_WITHOUT_OPENING {
            assert!(answer.content.starts_with(THOUGHT));
            continue;
        }
        let expected = (THOUGHT, "It rains.");
        assert_eq!((answer.reasoning.as_str(), answer.content.as_str()), expected, "{name}: {:?}", said.text);
        n_found += 1;
    }
    println!("reasoning of {n_found} templates found");
    assert_eq!(n_found, 27);
}

/// Templates of which no answer is held to all that they write: how many of three texts, and why.
const OTHERWISE: [(&str, usize, &str); 10] = [
    ("ByteDance-Seed-OSS", 1, "lists are JSON, not Python's"),
    ("GigaChat3-10B-A1.8B", 2, "the end of the section is that of the answer, in the model's own vocabulary"),
    ("GigaChat3.1-10B-A1.8B", 2, "likewise"),
    ("LFM2.5-8B-A1B", 1, "it writes quotes within quotes"),
    ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", 2, "it leaves out the end after one call"),
    ("google-gemma-4-31B-it", 1, "arguments come in the order of the schema; lists are JSON"),
    ("google-gemma-4-31B-it-interleaved", 1, "likewise"),
    ("muse-glimmer", 3, "there is no grammar for it"),
    ("openbmb-MiniCPM5-1B", 1, "lists are JSON, not Python's"),
    ("unsloth-Apriel-1.5", 3, "it tells its model to write other markers than it writes itself"),
];

/// What templates write after a call though it ends the answer, and before one though it is the prompt's.
const ENDS: [&str; 9] = [
    "<|tool_response>",
    "<|eom_id|>",
    "<|call|>",
    "<｜hy_eos:opensource｜>",
    "<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|>",
    "<SPECIAL_12>",
    "<｜end▁of▁sentence｜>",
    "<|close|>message",
];
const TURN: &str = "<|CHATBOT_TOKEN|>";

/// Whether a grammar derives a text, byte by byte.
fn derives(grammar: &str, text: &str) -> Result<(), String> {
    let environment: TokEnv = ApproximateTokEnv::single_byte_env();
    let mut factory = ParserFactory::new_simple(&environment).expect("a factory");
    factory.quiet();
    let mut matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar.to_owned())));
    if let Some(error) = matcher.get_error() {
        return Err(format!("{error}\n{grammar}"));
    }
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    match matcher.try_consume_tokens(&tokens) {
        Ok(n) if n < tokens.len() => Err(format!("up to byte {n} of {text:?}")),
        Ok(_) if matcher.is_accepting().unwrap_or(false) => Ok(()),
        Ok(_) => Err(format!("{text:?} would go on")),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn an_answer_that_has_to_call_is_held_to_what_templates_write() {
    let Some(oracles) = Oracles::find() else { return };
    let file = testing::tiny_model().expect("a model");
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&file).expect("a file")).expect("a tokenizer");
    let plain = json!({"city": "Paris"});
    let rich =
        json!({"city": "L'Aquila\n\"<b>\"", "days": 3, "exact": true, "at": [1.5, {"x": ["a", false]}]});
    let parameters = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "at": {"type": "array"},
        },
        "required": ["city"],
    });
    let tools = [json!({"type": "function", "function": {"name": TOOL, "parameters": parameters}})];
    let (mut n_derived, mut otherwise) = (0, BTreeMap::<&str, usize>::new());
    let templates = templates(&oracles);
    for (name, template) in &templates {
        let format = template.answer_format();
        for given in [vec![plain.clone()], vec![rich.clone()], vec![plain.clone(), plain.clone()]] {
            if read_back(template, &given) != Outcome::Read {
                continue;
            }
            let check = |message: Value| {
                let said = said(template, &message, TOOL)?;
                let text = said.text.strip_prefix(TURN).unwrap_or(&said.text);
                let text =
                    ENDS.iter().fold(text, |text, end| text.split(end).next().unwrap_or(text)).trim_end();
                let grammar = format.calls_grammar(&tokenizer, &said.prompt, &tools, given.len() == 1);
                Some(grammar.map_err(|error| error.to_string()).and_then(|grammar| derives(&grammar, text)))
            };
            let results: Vec<_> = calling(&given).filter_map(check).collect();
            if results.iter().any(Result::is_ok) {
                n_derived += 1;
            } else {
                println!("{name}: {results:?}");
                *otherwise.entry(name).or_default() += 1;
            }
            // One call is one call.
            if let ([_, _], Some(said)) = (&given[..], calling(&given).find_map(|m| said(template, &m, TOOL)))
                && let Ok(grammar) = format.calls_grammar(&tokenizer, &said.prompt, &tools, true)
                && said.text.matches("Paris").count() == 2
            {
                assert!(derives(&grammar, said.text.trim_end()).is_err(), "{name}: {}", said.text);
            }
        }
    }
    println!("{n_derived} texts derived");
    assert_eq!(otherwise, OTHERWISE.map(|(name, n, _)| (name, n)).into());
}
