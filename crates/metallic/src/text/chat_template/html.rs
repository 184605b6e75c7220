//! What Jinja does for HTML, which a chat template seldom wants but may run into.

use std::borrow::Cow;
use std::fmt::Write as _;

use minijinja::{AutoEscape, Error, State, Value};

use super::arguments::{Arguments, type_error};
use super::bounds::charge;
use super::python_repr::text;
use super::sequences::{is_dict, items};

/// The text of a value, without what HTML would read in it, unless the value is marked as safe.
pub(super) fn escaped(value: &Value, text: &str) -> String {
    if value.is_safe() { text.to_owned() } else { escape(text).into_owned() }
}

fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '\'', '"']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(2 * text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

pub(super) fn escape_filter(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value, Error> {
    let text = text(state, value)?;
    charge(state, 6 * text.len())?;
    Ok(Value::from_safe_string(escaped(value, &text)))
}

pub(super) fn force_escape(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value, Error> {
    let text = text(state, value)?;
    charge(state, 6 * text.len())?;
    Ok(Value::from_safe_string(escape(&text).into_owned()))
}

pub(super) fn safe(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value, Error> {
    text(state, value).map(Value::from_safe_string)
}

/// The text without comments and tags, its entities read, and its white space made single spaces.
pub(super) fn strip_tags(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value, Error> {
    let text = without(&text(state, value)?, "<!--", "-->");
    let text = without(&text, "<", ">");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Value::from(unescape(&text)))
}

fn without(text: &str, open: &str, close: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(open) {
        let Some(end) = rest[start..].find(close) else { break };
        out.push_str(&rest[..start]);
        rest = &rest[start + end + close.len()..];
    }
    out + rest
}

/// Entities by number, and the names of those that escaping writes and of the space.
fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let read = rest.find(';').and_then(|end| Some((entity(&rest[1..end])?, end + 1)));
        let (c, len) = read.unwrap_or(('&', 1));
        out.push(c);
        rest = &rest[len..];
    }
    out + rest
}

fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{A0}'),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

/// A dictionary as attributes of a tag. What is none or undefined is left out.
pub(super) fn xml_attributes(
    state: &mut State<'_, '_>,
    value: &Value,
    options: &Arguments,
) -> Result<Value, Error> {
    if !is_dict(value) {
        return Err(type_error("xmlattr needs a dictionary"));
    }
    let mut parts = Vec::new();
    for key in items(state, value)? {
        let item = value.get_item(&key)?;
        if item.is_none() || item.is_undefined() {
            continue;
        }
        let name = text(state, &key)?;
        if name.contains([' ', '\t', '\n', '\r', '\x0C', '/', '>', '=']) {
            return Err(type_error(format!("xmlattr: {name:?} is no name of an attribute")));
        }
        let item_text = text(state, &item)?;
        charge(state, 6 * (name.len() + item_text.len()))?;
        parts.push(format!("{}=\"{}\"", escaped(&key, &name), escaped(&item, &item_text)));
    }
    let autospace = options.get(0).is_none_or(Value::is_true);
    let space = if autospace && !parts.is_empty() { " " } else { "" };
    let attributes = format!("{space}{}", parts.join(" "));
    Ok(match state.auto_escape() {
        AutoEscape::None => Value::from(attributes),
        _ => Value::from_safe_string(attributes),
    })
}

/// A text as part of an address, or pairs as a query.
pub(super) fn url_encode(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value, Error> {
    if value.as_str().is_some() || value.is_none() || value.try_iter().is_err() {
        return quote(state, value, true).map(Value::from);
    }
    let mut parts = Vec::new();
    for item in items(state, value)? {
        let [key, item] = if is_dict(value) {
            let of_key = value.get_item(&item)?;
            [item, of_key]
        } else {
            let pair = items(state, &item)?;
            pair.try_into().map_err(|_| type_error("urlencode needs text, a dictionary or pairs"))?
        };
        parts.push(format!("{}={}", quote(state, &key, false)?, quote(state, &item, false)?));
    }
    Ok(Value::from(parts.join("&")))
}

fn quote(state: &State<'_, '_>, value: &Value, is_path: bool) -> Result<String, Error> {
    let text = text(state, value)?;
    charge(state, 3 * text.len())?;
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'/' if is_path => out.push('/'),
            b' ' if !is_path => out.push('+'),
            b'_' | b'.' | b'-' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}"); // a string takes all
            }
        }
    }
    Ok(out)
}
