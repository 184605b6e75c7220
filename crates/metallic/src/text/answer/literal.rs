//! Calls in the notation of a programming language: Python's `[name(key='text', other=1)]`, and Gemma's
//! `call:name{key:<|"|>text<|"|>,other:1}`. Both are read by one parser that takes the marks of either.

use serde_json::{Map, Number, Value};

use super::ToolCall;

/// What Gemma writes on both sides of a text.
pub(super) const GEMMA_QUOTE: &str = "<|\"|>";

/// How deep values may nest. JSON's parser has a limit for the same reason: the stack.
const MAX_DEPTH: usize = 64;

type Result<T> = std::result::Result<T, &'static str>;

/// The calls that are all of a text.
pub(super) fn calls(text: &str) -> Result<Vec<ToolCall>> {
    let mut parser = Parser { rest: text.trim() };
    let in_list = parser.take("[");
    let mut calls = Vec::new();
    while if in_list { !parser.take("]") } else { !parser.rest.is_empty() } {
        calls.push(parser.call()?);
        let _ = parser.take(",") || parser.take(";");
    }
    if parser.rest.is_empty() { Ok(calls) } else { Err("text follows the calls") }
}

/// The value that is all of a text.
pub(super) fn value(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text.trim() };
    let value = parser.value(0)?;
    if parser.rest.is_empty() { Ok(value) } else { Err("text follows the value") }
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    /// Goes past a text and the whitespace after it, if it is next.
    fn take(&mut self, text: &str) -> bool {
        let after = self.rest.strip_prefix(text);
        self.rest = after.map_or(self.rest, str::trim_start);
        after.is_some()
    }

    /// What is before the first of some characters.
    fn until(&mut self, ends: &[char]) -> &'t str {
        let (text, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        text.trim()
    }

    fn call(&mut self) -> Result<ToolCall> {
        self.take("call:");
        let name = self.until(&['(', '{', '[', ',', '\n']);
        // Llama calls its built-in tools so.
        let name = name.strip_suffix(".call").unwrap_or(name);
        let is_fit = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(is_fit) {
            return Err("a call has no name");
        }
        let arguments = if self.take("(") {
            self.members('=', ")", 0)?
        } else if self.take("{") {
            self.members(':', "}", 0)?
        } else {
            return Err("a call has no arguments");
        };
        Ok(ToolCall { id: None, name: name.to_owned(), arguments })
    }

    fn members(&mut self, separator: char, end: &str, depth: usize) -> Result<Map<String, Value>> {
        let mut members = Map::new();
        while !self.take(end) {
            let key = match self.string()? {
                Some(key) => key,
                None => self.until(&[separator, ',', ')', '}']).to_owned(),
            };
            self.rest =
                self.rest.trim_start().strip_prefix(separator).ok_or("a key has no value")?.trim_start();
            members.insert(key, self.value(depth + 1)?);
            if !self.take(",") && !self.rest.starts_with(end) {
                return Err("arguments are not closed");
            }
        }
        Ok(members)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err("a value is nested too deep");
        }
        if let Some(text) = self.string()? {
            return Ok(Value::String(text));
        }
        if self.take("{") {
            return self.members(':', "}", depth).map(Value::Object);
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                items.push(self.value(depth + 1)?);
                if !self.take(",") && !self.rest.starts_with(']') {
                    return Err("a list is not closed");
                }
            }
            return Ok(Value::Array(items));
        }
        match self.until(&[',', ']', '}', ')']) {
            "true" | "True" => Ok(Value::Bool(true)),
            "false" | "False" => Ok(Value::Bool(false)),
            "null" | "None" => Ok(Value::Null),
            word => word
                .parse::<Number>()
                .map(Value::Number)
                .map_err(|_| "a value is not closed or has no quotes"),
        }
    }

    /// A text in quotes, if it is next.
    fn string(&mut self) -> Result<Option<String>> {
        const OPEN: &str = "a text is not closed";
        if let Some(rest) = self.rest.strip_prefix(GEMMA_QUOTE) {
            let (text, rest) = rest.split_once(GEMMA_QUOTE).ok_or(OPEN)?;
            self.rest = rest.trim_start();
            return Ok(Some(text.to_owned()));
        }
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return Ok(None);
        };
        let mut text = String::new();
        let mut chars = self.rest[1..].chars();
        loop {
            match chars.next().ok_or(OPEN)? {
                '\\' => text.push(escaped(&mut chars).ok_or(OPEN)?),
                c if c == quote && ends_text(chars.as_str()) => break,
                c => text.push(c),
            }
        }
        self.rest = chars.as_str().trim_start();
        Ok(Some(text))
    }
}

/// Whether a quote that this follows ends a text. Some templates don't escape quotes, so that models don't
/// either.
fn ends_text(rest: &str) -> bool {
    rest.trim_start().chars().next().is_none_or(|c| matches!(c, ',' | ')' | ']' | '}' | ':' | '='))
}

/// The character that an escape sequence stands for, of which the backslash has been read.
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let n_digits = match chars.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        character => return Some(character),
    };
    let (digits, rest) = chars.as_str().split_at_checked(n_digits)?;
    *chars = rest.chars();
    u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)
}
