//! From the text of a section to the calls that are written in it.

use serde_json::{Map, Value};

use super::ToolCall;
use super::literal;
use super::section::{Arguments, Syntax, Tag};

/// Marks between a call's name and its id: the name before it, or after it.
pub(super) const ID_MARKS: [&str; 2] = ["[CALL_ID]", "<|tool_call:name|>"];

/// The keys of a call in JSON, in the order in which they count.
pub(super) const NAMES: [&str; 3] = ["name", "tool_name", "function"];
pub(super) const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
pub(super) const IDS: [&str; 2] = ["id", "tool_call_id"];

/// Why a text is not a call.
#[derive(Debug, PartialEq)]
pub(super) struct NoCall {
    pub(super) reason: String,
    /// Whether it may be the beginning of one.
    pub(super) is_cut: bool,
}

impl From<&str> for NoCall {
    fn from(reason: &str) -> Self {
        NoCall { reason: reason.to_owned(), is_cut: false }
    }
}

impl From<serde_json::Error> for NoCall {
    fn from(error: serde_json::Error) -> Self {
        NoCall { reason: format!("not JSON: {error}"), is_cut: error.is_eof() }
    }
}

fn missing(mark: &str) -> NoCall {
    NoCall { reason: format!("{mark:?} is missing"), is_cut: true }
}

type Result<T> = std::result::Result<T, NoCall>;

/// The calls of a section, markers and all, of which `inner` is what is between them. If no syntax fits, the
/// error is that of the first.
pub(super) fn parse(syntaxes: &[Syntax], whole: &str, inner: &str) -> Result<Vec<ToolCall>> {
    let mut first_error: Option<NoCall> = None;
    for syntax in syntaxes {
        let calls = match syntax {
            Syntax::Json(_) => json_calls(inner),
            Syntax::Tagged { call, arguments } => tagged_calls(whole, call, arguments),
            Syntax::Python | Syntax::Gemma => literal::calls(inner).map_err(NoCall::from),
        };
        match calls {
            Ok(calls) if !calls.is_empty() => return Ok(calls),
            Ok(_) => {}
            Err(error) => {
                let first = first_error.get_or_insert(NoCall { is_cut: false, ..error });
                first.is_cut |= error.is_cut;
            }
        }
    }
    Err(first_error.unwrap_or_else(|| "there is no call".into()))
}

/// JSON values one after the other, each a call or a list of calls.
pub(super) fn json_calls(text: &str) -> Result<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (value, after) = first_json(rest)?;
        match value {
            Value::Array(items) => {
                for item in items {
                    calls.push(json_call(item)?);
                }
            }
            value => calls.push(json_call(value)?),
        }
        rest = after.trim_start_matches([';', ',']).trim_start();
    }
    Ok(calls)
}

/// The JSON value that a text begins with, and what follows it.
fn first_json(text: &str) -> Result<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next().ok_or(NoCall { reason: "nothing follows".to_owned(), is_cut: true })??;
    Ok((value, text[values.byte_offset()..].trim_start()))
}

/// `{"name": …, "arguments": {…}}` and its kin.
fn json_call(value: Value) -> Result<ToolCall> {
    let Value::Object(mut object) = value else { return Err("a call is not a JSON object".into()) };
    if let Some(function @ Value::Object(_)) = object.get_mut("function") {
        return json_call(function.take());
    }
    let mut take = |keys: &[&str]| keys.iter().find_map(|key| object.shift_remove(*key));
    let (name, arguments, id) = (take(&NAMES), take(&ARGUMENTS), take(&IDS));
    match (name, arguments) {
        (Some(Value::String(name)), Some(given)) => {
            let id = id.and_then(|id| id.as_str().map(str::to_owned));
            Ok(ToolCall { id, name: checked_name(&name)?.to_owned(), arguments: object_of(given)? })
        }
        // {"name of the tool": {…}}
        (None, None) if object.len() == 1 => {
            let (name, given) = object.into_iter().next().ok_or("a call has no name")?;
            Ok(ToolCall { id: None, name: checked_name(&name)?.to_owned(), arguments: object_of(given)? })
        }
        (Some(_), None) => Err("a call has no arguments".into()),
        _ => Err("a call has no name".into()),
    }
}

/// Arguments are an object; some models write it as JSON in a string.
fn object_of(value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(arguments) => Ok(arguments),
        Value::String(json) => serde_json::from_str(&json).map_err(NoCall::from),
        _ => Err("a call's arguments are not a JSON object".into()),
    }
}

/// What tools can be called. Anything else is not a call but text that looks like one.
pub(super) fn checked_name(name: &str) -> Result<&str> {
    let is_fit = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':');
    if !name.is_empty() && name.chars().all(is_fit) { Ok(name) } else { Err("a call has no name".into()) }
}

fn tagged_calls(whole: &str, call: &Tag, arguments: &Arguments) -> Result<Vec<ToolCall>> {
    let mut calls = Vec::new();
    let mut rest = whole;
    while let Some((_, after)) = rest.split_once(call.open) {
        let head = head(after.trim_start(), call, arguments)?;
        // What may follow a name before its value may follow it at once, as in `to=functions.name code`.
        let has_attributes = !call.value_after.is_empty();
        let name = head.name.split_whitespace().next().filter(|_| has_attributes).unwrap_or(head.name);
        let (id, name) = id_and_name(name)?;
        let arguments = match arguments {
            Arguments::Json => {
                let (value, after) = first_json(head.rest)?;
                rest = after;
                object_of(value)?
            }
            Arguments::Tagged(tag) => {
                let (text, after) = head.rest.split_once(call.close).ok_or_else(|| missing(call.close))?;
                rest = after;
                tagged_arguments(text, tag)?
            }
        };
        calls.push(ToolCall { id, name, arguments });
    }
    Ok(calls)
}

/// The name of a call or an argument, what is said of its value, and what follows.
pub(super) struct Head<'t> {
    pub(super) name: &'t str,
    attributes: &'t str,
    pub(super) rest: &'t str,
}

pub(super) fn head<'t>(text: &'t str, tag: &Tag, arguments: &Arguments) -> Result<Head<'t>> {
    let name_end = text.find(tag.name_end);
    // A name may be followed by arguments at once, or by nothing.
    let others = match arguments {
        Arguments::Tagged(argument) => [text.find(argument.open), text.find(tag.close)],
        Arguments::Json => [None, None],
    };
    let end = others.into_iter().chain([name_end]).flatten().min().ok_or_else(|| missing(tag.name_end))?;
    let (name, after) = text.split_at(end);
    let (attributes, rest) = if Some(end) != name_end {
        ("", after)
    } else if tag.value_after.is_empty() {
        ("", &after[tag.name_end.len()..])
    } else {
        after.split_once(tag.value_after).ok_or_else(|| missing(tag.value_after))?
    };
    Ok(Head { name: name.trim(), attributes, rest })
}

/// A name as the families write it: `functions.name:0`, `name[CALL_ID]id`, `id<|tool_call:name|>name`.
pub(super) fn id_and_name(text: &str) -> Result<(Option<String>, String)> {
    let [name_first, id_first] = ID_MARKS;
    let (id, name) = if let Some((name, id)) = text.split_once(name_first) {
        (Some(id), name)
    } else if let Some((id, name)) = text.split_once(id_first) {
        (Some(id), name)
    } else {
        match text.rsplit_once(':') {
            Some((name, count)) if count.parse::<u32>().is_ok() => (Some(text), name),
            _ => (None, text),
        }
    };
    let name = checked_name(name.strip_prefix("functions.").unwrap_or(name))?;
    Ok((id.map(str::to_owned), name.to_owned()))
}

fn tagged_arguments(text: &str, tag: &Tag) -> Result<Map<String, Value>> {
    let mut arguments = Map::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(tag.open) {
        let head = head(after, tag, &Arguments::Json)?;
        let close = tag.close.replace("{}", head.name);
        let (value, after) = head.rest.split_once(&close).ok_or_else(|| missing(&close))?;
        arguments.insert(head.name.to_owned(), argument(value, head.attributes));
        rest = after;
    }
    Ok(arguments)
}

/// A value between tags. Templates write text as it is and everything else as JSON, or as Python writes it.
/// So what reads as a number, a truth value, a list or an object is that, unless an attribute says that it is
/// text.
fn argument(text: &str, attributes: &str) -> Value {
    let lines = text.strip_prefix('\n').and_then(|text| text.strip_suffix('\n'));
    let text = lines.unwrap_or(text);
    let cdata = text.trim().strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>"));
    let is_text = attributes.contains("string=\"true\"") || attributes.contains("type=\"string\"");
    if is_text || cdata.is_some() {
        return Value::String(cdata.unwrap_or(text).to_owned());
    }
    match serde_json::from_str(text).ok().or_else(|| literal::value(text).ok()) {
        Some(value) if !value.is_string() => value,
        _ => Value::String(text.to_owned()),
    }
}
