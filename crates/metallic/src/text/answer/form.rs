//! The form of answers that have to call tools: a grammar of what a family's models write of their own accord, in Lark's
//! notation as llguidance reads it.
//!
//! Between the parts of a call there may be white space, as much as models put there. What is not done: arguments between
//! tags that the tool's schema doesn't name, and Muse's calls, whose recipient is said twice.

use std::fmt::Write as _;

use serde_json::Value;

use super::calls::{ID_MARKS, checked_name};
use super::literal::GEMMA_QUOTE;
use super::section::{Arguments, Kind, Object, Section, Syntax, Tag};

/// Why no grammar can be made of calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallFormError {
    /// The model's chat template has no calls, or calls of a kind that there is no grammar for.
    #[error("the model's chat template has no form of calls that an answer could be held to")]
    NoForm,
    /// A call of a tool of this name would not be read.
    #[error("a tool can't be called {name:?}: a name is made of letters, digits and any of _-./:")]
    Name {
        /// The name.
        name: String,
    },
    /// There is nothing to call.
    #[error("there is no tool to call")]
    NoTools,
}

/// The section in which a model's calls are, and how they are written in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallForm {
    section: &'static Section,
    syntax: &'static Syntax,
    /// Whether the section has an end of its own, beside that of the answer.
    has_close: bool,
}

impl CallForm {
    /// The form of the model whose template this is, of which these are the sections: the first of those whose marks it has.
    pub(super) fn of_template(source: &str, sections: &[&'static Section]) -> Option<Self> {
        let source = source.replace("\\n", "\n");
        // Some templates name the beginning alone; others make both of parts, whose last says which it is.
        let is_named = |text: &str| {
            let tail = text.rsplit(['｜', '[']).next().unwrap_or_default();
            source.contains(text) || tail.len() > 1 && source.contains(tail)
        };
        let form = |section: &'static Section| {
            let syntax = match &section.kind {
                Kind::Calls(syntaxes) => written(&source, syntaxes)?,
                Kind::WholeAnswer => &LLAMA,
                Kind::Header { to_tool, .. } => match &to_tool.kind {
                    Kind::Calls([syntax @ Syntax::Tagged { arguments: Arguments::Json, .. }]) => syntax,
                    _ => return None,
                },
                Kind::Reasoning | Kind::Content => return None,
            };
            // A marker may be part of another, and some models forget the section around a call: they are held to it.
            let is_inner = sections.iter().any(|other| {
                let Kind::Calls(syntaxes) = &other.kind else { return false };
                if other.open.len() > section.open.len() && other.open.ends_with(section.open) {
                    return true;
                }
                let begins = |syntax: &Syntax| matches!(syntax, Syntax::Tagged { call, .. } if call.open == section.open);
                other.open != section.open && syntaxes.iter().any(begins)
            });
            let (opens, closes) = (is_named(section.open), section.close.first().is_none_or(|c| is_named(c)));
            let has_close = !section.close.is_empty() && (closes || !opens);
            Some((usize::from(opens && closes && !is_inner), CallForm { section, syntax, has_close }))
        };
        // Of equals the last counts, which so is the first.
        let forms = sections.iter().rev().filter_map(|&section| form(section));
        forms.max_by_key(|(rank, _)| *rank).map(|(_, form)| form)
    }
}

/// What calls without a marker of their own are.
const LLAMA: Syntax = Syntax::Json(Object {
    name: Some("name"),
    arguments: "parameters",
    ids: [None; 2],
    in_list: Some(false),
});

/// Of the ways that families with the same marker have, the one whose own marks the template has.
fn written(source: &str, syntaxes: &'static [Syntax]) -> Option<&'static Syntax> {
    let [first, others @ ..] = syntaxes else { return None };
    let has = |mark: &str| source.contains(mark.trim());
    // What comes after a first marker may be put together.
    let has_first = |open: &str| has(open.split_inclusive('>').next().unwrap_or_default());
    let is_tagged = |syntax: &&Syntax| match syntax {
        Syntax::Tagged { call, arguments: Arguments::Json } => {
            has_first(call.open) && has(call.name_end) && has(call.value_after)
        }
        Syntax::Tagged { call, arguments: Arguments::Tagged(argument) } => {
            has_first(call.open) && has(argument.open) && has(argument.value_after)
        }
        _ => false,
    };
    Some(if others.is_empty() { first } else { syntaxes.iter().find(is_tagged).unwrap_or(first) })
}

/// A tool that may be called.
struct Tool<'t> {
    name: &'t str,
    /// The schema of its arguments, which are an object.
    schema: Value,
}

impl<'t> Tool<'t> {
    /// Of a tool as OpenAI's API describes it.
    fn of(tool: &'t Value) -> Result<Self, CallFormError> {
        let function = tool.get("function").unwrap_or(tool);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        if checked_name(name).is_err() {
            return Err(CallFormError::Name { name: name.to_owned() });
        }
        let mut schema = function.get("parameters").and_then(Value::as_object).cloned().unwrap_or_default();
        schema.entry("type").or_insert_with(|| "object".into());
        Ok(Tool { name, schema: Value::Object(schema) })
    }

    /// What the schema says of each argument, and whether there must be one.
    fn properties(&self) -> Vec<(&str, Value, bool)> {
        let Some(properties) = self.schema.get("properties").and_then(Value::as_object) else {
            return Vec::new();
        };
        let required = self.schema.get("required").and_then(Value::as_array);
        let is_required =
            |name: &str| required.is_some_and(|names| names.iter().any(|other| other.as_str() == Some(name)));
        let whole = |schema: &Value| {
            let mut schema = schema.clone();
            // What it refers to is in the schema that it is from.
            for definitions in ["$defs", "definitions"] {
                if let (Value::Object(schema), Some(given)) = (&mut schema, self.schema.get(definitions)) {
                    schema.entry(definitions).or_insert_with(|| given.clone());
                }
            }
            schema
        };
        properties.iter().map(|(name, schema)| (name.as_str(), whole(schema), is_required(name))).collect()
    }
}

/// What values of a schema are, as far as that decides how they are written.
enum Values {
    /// These texts.
    Texts(Vec<String>),
    /// Any text.
    Text,
    Boolean,
    /// What JSON has beside.
    Json,
    /// Not known, so that they may be written like texts.
    Any,
}

impl Values {
    fn of(schema: &Value) -> Self {
        let texts = |values: &[Value]| -> Option<Vec<String>> {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        };
        let listed = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => texts(std::slice::from_ref(value)),
            (None, Some(values)) => texts(values),
            (None, None) => None,
        };
        if let Some(texts) = listed.filter(|texts| !texts.is_empty()) {
            return Values::Texts(texts);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string") => Values::Text,
            Some("boolean") => Values::Boolean,
            Some("integer" | "number" | "object" | "array" | "null") => Values::Json,
            _ => Values::Any,
        }
    }
}

/// What may come before calls.
pub(super) struct Before<'s> {
    /// A thought, and whether the prompt has opened it.
    pub(super) thought: Option<(&'s Section, bool)>,
    /// Sections of what is said to the user.
    pub(super) contents: Vec<&'s Section>,
}

/// The tokens that a grammar names by number.
pub(super) struct Controls {
    /// Control tokens, with their texts.
    pub(super) texts: Vec<(String, u32)>,
    /// Those that end an answer.
    pub(super) ends: Vec<u32>,
}

/// The grammar of answers that call one of these tools or, unless `only_one`, several of them.
pub(super) fn grammar(
    form: &CallForm,
    before: &Before<'_>,
    controls: Controls,
    tools: &[Value],
    only_one: bool,
) -> Result<String, CallFormError> {
    if tools.is_empty() {
        return Err(CallFormError::NoTools);
    }
    let tools = tools.iter().map(Tool::of).collect::<Result<Vec<_>, _>>()?;
    let mut writer = Writer { rules: String::new(), controls, n_rules: 0 };
    let calls = match &form.section.kind {
        Kind::Header { .. } => writer.harmony(&tools),
        _ => {
            let calls = writer.sections(form, &tools, only_one);
            let thought = before.thought.map(|(section, is_open)| writer.thought(section, is_open));
            // Where an answer to the user has a section, some write one though nothing is in it.
            let nothing = before.contents.iter().filter_map(|section| {
                let (open, close) = (writer.marker(section.open), writer.marker(section.close.first()?));
                Some(format!("(WS? {open} {close})?"))
            });
            let nothing: String = nothing.collect();
            format!("{} {nothing} WS? {calls}", thought.unwrap_or_default())
        }
    };
    let Writer { rules, .. } = writer;
    Ok(format!("start: {calls}\n{rules}WS: /[ \\t\\r\\n]{{1,16}}/\nANY: /(.|\\n)+/\n"))
}

struct Writer {
    rules: String,
    controls: Controls,
    n_rules: usize,
}

/// A text of a grammar.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn schema_of(schema: &Value) -> String {
    format!("%json {schema}")
}

/// Either of these; nothing can't be one of them.
fn either(choices: impl IntoIterator<Item = String>) -> String {
    format!("({})", choices.into_iter().collect::<Vec<_>>().join(" | "))
}

impl Writer {
    /// Adds a rule, and gives its name.
    fn rule(&mut self, attributes: &str, body: &str) -> String {
        let name = format!("r{}", self.n_rules);
        self.n_rules += 1;
        let _ = writeln!(self.rules, "{name}{attributes}: {body}");
        name
    }

    /// The control token that comes first in a text, where in it, and how long it is.
    fn control(&self, text: &str) -> Option<(usize, usize, u32)> {
        let found =
            self.controls.texts.iter().filter_map(|(name, id)| Some((text.find(name)?, name.len(), *id)));
        found.min_by_key(|&(at, n_bytes, _)| (at, std::cmp::Reverse(n_bytes)))
    }

    /// A marker, as tokens where it has some.
    fn marker(&self, text: &str) -> String {
        if !text.is_empty() && text.trim().is_empty() {
            return "WS?".to_owned();
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((at, n_bytes, id)) = self.control(rest) {
            if at > 0 {
                parts.push(quoted(&rest[..at]));
            }
            parts.push(format!("<[{id}]>"));
            rest = &rest[at + n_bytes..];
        }
        if !rest.is_empty() {
            parts.push(quoted(rest));
        }
        parts.join(" ")
    }

    /// Any text up to a marker, and the marker.
    fn until(&mut self, marker: &str) -> String {
        match self.control(marker) {
            Some((0, ..)) => format!("ANY? {}", self.marker(marker)),
            // Of text that ends with what a token follows, all is looked through for it.
            Some((at, ..)) => {
                let before = self.rule(&format!("[suffix={}]", quoted(&marker[..at])), "/(.|\\n)*/");
                format!("{before} {}", self.marker(&marker[at..]))
            }
            None => self.rule(&format!("[suffix={}]", quoted(marker)), "/(.|\\n)*/"),
        }
    }

    fn thought(&mut self, section: &Section, is_open: bool) -> String {
        let Some(close) = section.close.first() else { return String::new() };
        let rest = self.until(close);
        if is_open {
            rest
        } else {
            // Some that are not to think begin with the end of a thought.
            format!("(WS? ({} {rest} | {}))?", self.marker(section.open), self.marker(close))
        }
    }

    /// Sections of calls, one after the other.
    fn sections(&mut self, form: &CallForm, tools: &[Tool<'_>], only_one: bool) -> String {
        let CallForm { section, syntax, has_close } = *form;
        let (open, close) = (self.marker(section.open), section.close.first().filter(|_| has_close));
        // What ends the answer ends the section.
        let is_end =
            |close: &str| self.control(close).is_some_and(|(.., id)| self.controls.ends.contains(&id));
        let close = close.filter(|close| !is_end(close));
        let close = close.map(|close| self.marker(close)).unwrap_or_default();
        let body = match syntax {
            // The name follows at once on what is the section's beginning as well.
            Syntax::Tagged { call, arguments } if call.open == section.open => {
                let calls: Vec<_> = tools.iter().map(|tool| self.tagged(tool, call, arguments)).collect();
                let call_close = if call.close == section.close.first().copied().unwrap_or_default() {
                    String::new()
                } else {
                    self.marker(call.close)
                };
                let call = format!("{open} {} {call_close} {close}", either(calls));
                let call = self.rule("", &call);
                return if only_one { call } else { format!("{call} (WS? {call})*") };
            }
            Syntax::Tagged { call, arguments } => {
                let (call_open, call_close) = (self.marker(call.open), self.marker(call.close));
                let calls: Vec<_> = tools.iter().map(|tool| self.tagged(tool, call, arguments)).collect();
                let call = format!("{call_open} {} WS? {call_close}", either(calls));
                let call = self.rule("", &call);
                if only_one { call } else { format!("{call} (WS? {call})*") }
            }
            Syntax::Json(object) => {
                let calls: Vec<_> = tools.iter().map(|tool| object_of(tool, object)).collect();
                let call = self.rule("", &either(calls));
                let list = |more: &str| format!("\"[\" WS? {call}{more} WS? \"]\"");
                let (list, objects) = if only_one {
                    (list(""), call.clone())
                } else {
                    (list(&format!(" (WS? \",\" WS? {call})*")), format!("{call} (WS? {call})*"))
                };
                match object.in_list {
                    Some(true) => list,
                    Some(false) => call,
                    None => format!("({list} | {objects})"),
                }
            }
            Syntax::Python => {
                let calls: Vec<_> = tools.iter().map(|tool| self.python(tool)).collect();
                let call = self.rule("", &either(calls));
                let more = if only_one { String::new() } else { format!(" (\",\" WS? {call})*") };
                format!("\"[\" {call}{more} \"]\"")
            }
            Syntax::Gemma => {
                let calls: Vec<_> = tools.iter().map(|tool| self.gemma(tool)).collect();
                either(calls)
            }
        };
        // A call that is all of an answer begins with what the section begins with.
        let is_bare = matches!(section.kind, Kind::WholeAnswer);
        let section = if is_bare { body } else { format!("{open} WS? {body} WS? {close}") };
        let section = self.rule("", &section);
        if only_one || close.is_empty() { section } else { format!("{section} (WS? {section})*") }
    }

    /// A call from its name to the end of its arguments.
    fn tagged(&mut self, tool: &Tool<'_>, call: &Tag, arguments: &Arguments) -> String {
        let (name_end, value_after) = (self.marker(call.name_end), self.marker(call.value_after));
        let name = self.name(tool.name, call);
        let head = format!("{name} {name_end} {} {value_after}", attributes(call));
        match arguments {
            Arguments::Json => format!("({head} WS? {} WS?)", schema_of(&tool.schema)),
            Arguments::Tagged(tag) => {
                let mut body = format!("({head}");
                for (name, schema, is_required) in tool.properties() {
                    let argument = self.argument(name, &schema, tag);
                    let _ = write!(body, " WS? ({argument}){}", if is_required { "" } else { "?" });
                }
                body + " WS?)"
            }
        }
    }

    /// A tool's name with what some families write beside it.
    fn name(&self, name: &str, call: &Tag) -> String {
        let [after, before] = ID_MARKS.map(|mark| self.marker(mark));
        match call.name_end {
            // Kimi numbers calls.
            "<|tool_call_argument_begin|>" => {
                format!("{} /[0-9]{{1,4}}/", quoted(&format!("functions.{name}:")))
            }
            "<|tool_call:args|>" => format!("/[a-zA-Z0-9_-]{{1,40}}/ {before} {}", quoted(name)),
            "[ARGS]" => format!("{} ({after} /[a-zA-Z0-9]{{1,40}}/)?", quoted(name)),
            _ => quoted(name),
        }
    }

    /// An argument between tags. Texts are written as they are, everything else as JSON.
    fn argument(&mut self, name: &str, schema: &Value, tag: &Tag) -> String {
        let close = tag.close.replace("{}", name);
        let (open, name_end, after) =
            (self.marker(tag.open), self.marker(tag.name_end), self.marker(tag.value_after));
        let gap = if tag.value_after.is_empty() { "" } else { "WS?" };
        let head = format!("{open} {} {name_end} {} {gap} {after}", quoted(name), attributes(tag));
        let value = match Values::of(schema) {
            Values::Texts(texts) => {
                format!("WS? {} WS? {}", either(texts.iter().map(|text| quoted(text))), self.marker(&close))
            }
            // As Python or JSON writes it.
            Values::Boolean => {
                format!("WS? /[Tt]rue|[Ff]alse/ WS? {}", self.marker(&close))
            }
            Values::Json => format!("WS? {} WS? {}", schema_of(schema), self.marker(&close)),
            Values::Text | Values::Any => self.until(&close),
        };
        format!("{head} {value}")
    }

    fn python(&mut self, tool: &Tool<'_>) -> String {
        let members = tool.properties().into_iter().map(|(name, schema, is_required)| {
            let value = match Values::of(&schema) {
                Values::Boolean => "(\"True\" | \"False\")".to_owned(),
                Values::Texts(texts) => {
                    // As JSON and Python both write it.
                    either(texts.iter().flat_map(|text| {
                        let quoted = Value::from(text.as_str()).to_string();
                        let single = format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
                        [self::quoted(&quoted), self::quoted(&single)]
                    }))
                }
                Values::Text => format!("({} | /'([^'\\\\\\n]|\\\\.)*'/)", schema_of(&schema)),
                Values::Json | Values::Any => schema_of(&schema),
            };
            (format!("{} \"=\" {value}", quoted(name)), is_required)
        });
        let members = members.collect();
        format!("({} {} \")\")", quoted(&format!("{}(", tool.name)), self.members(members, "\",\" WS?"))
    }

    fn gemma(&mut self, tool: &Tool<'_>) -> String {
        let mut members = Vec::new();
        for (name, schema, is_required) in tool.properties() {
            let value = match Values::of(&schema) {
                Values::Texts(texts) => {
                    let quote = self.marker(GEMMA_QUOTE);
                    format!("{quote} {} {quote}", either(texts.iter().map(|text| quoted(text))))
                }
                Values::Text => format!("{} {}", self.marker(GEMMA_QUOTE), self.until(GEMMA_QUOTE)),
                Values::Boolean | Values::Json | Values::Any => schema_of(&schema),
            };
            members.push((format!("{} {value}", quoted(&format!("{name}:"))), is_required));
        }
        format!("({} {} \"}}\")", quoted(&format!("call:{}{{", tool.name)), self.members(members, "\",\""))
    }

    /// Members between which there is a comma, of which some may be left out.
    fn members(&mut self, members: Vec<(String, bool)>, comma: &str) -> String {
        // What may follow where none has come, and where one has.
        let (mut first, mut next) = (String::new(), String::new());
        for (member, is_required) in members.into_iter().rev() {
            let begun = self.rule("", &format!("{member} {next}"));
            let gone_on = format!("{comma} {begun}");
            if is_required {
                (first, next) = (begun, gone_on);
            } else {
                let or = |more: &str, rest: &str| {
                    if rest.is_empty() { format!("({more})?") } else { format!("({more} | {rest})") }
                };
                (first, next) = (or(&begun, &first), or(&gone_on, &next));
            }
        }
        first
    }

    /// gpt-oss: headers say to whom a message goes. One call to an answer, as it has been trained.
    fn harmony(&mut self, tools: &[Tool<'_>]) -> String {
        let calls = tools.iter().map(|tool| {
            let to = format!("to=functions.{}", tool.name);
            let in_channel = self.marker(&format!("<|channel|>commentary {to} <|constrain|>json<|message|>"));
            let plain = self.marker(&format!("<|channel|>commentary {to} json<|message|>"));
            let before = self.marker(&format!(" {to}<|channel|>commentary json<|message|>"));
            format!("(({in_channel} | {plain} | {before}) {})", schema_of(&tool.schema))
        });
        let call = either(calls.collect::<Vec<_>>());
        let thought = self.marker("<|channel|>analysis<|message|>");
        let end = self.until("<|end|>");
        let start = self.marker("<|start|>assistant");
        format!("({thought} {end} {start})? {call}")
    }
}

/// What else may be said of a name before its value begins.
fn attributes(tag: &Tag) -> &'static str {
    let has_attributes = tag.name_end == "\"" && !tag.value_after.is_empty();
    if has_attributes { "/( [a-z]+=\"[a-z0-9]+\")*/" } else { "" }
}

/// A call as a JSON object.
fn object_of(tool: &Tool<'_>, object: &Object) -> String {
    let key = |key: &str| format!("{} WS? \":\" WS?", quoted(&Value::from(key).to_string()));
    let name = Value::from(tool.name).to_string();
    let arguments = schema_of(&tool.schema);
    let Some(name_key) = object.name else {
        // The brace and the name at once, as a section may begin with them.
        return format!("(\"{{\" WS? {} {arguments} WS? \"}}\")", key(tool.name));
    };
    let id = r#"/"[a-zA-Z0-9_-]{1,40}"/"#;
    let [before, after] = object.ids;
    let before = before.map(|before| format!("({} {id} WS? \",\" WS?)?", key(before))).unwrap_or_default();
    let after = after.map(|after| format!("(WS? \",\" WS? {} {id})?", key(after))).unwrap_or_default();
    let rest = format!(
        "WS? \":\" WS? {} WS? \",\" WS? {} {arguments} {after} WS? \"}}\")",
        quoted(&name),
        key(object.arguments)
    );
    if before.is_empty() {
        let begin = quoted(&format!("{{{}", Value::from(name_key)));
        format!("({begin} {rest}")
    } else {
        format!("(\"{{\" WS? {before} {} {rest}", quoted(&Value::from(name_key).to_string()))
    }
}
