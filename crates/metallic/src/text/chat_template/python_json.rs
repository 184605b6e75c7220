//! `tojson`: JSON as Python's `json.dumps` writes it.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::{Arguments, type_error};
use super::bounds::room;
use super::operators::sorted;
use super::python_repr::float;
use super::sequences::{Generator, View, is_dict, is_list};

/// How deep a value may nest that is written.
const MAX_DEPTH: usize = 256;

/// The filter's options, in the order that transformers gives them.
pub(super) const OPTIONS: &[&str] = &["ensure_ascii", "indent", "separators", "sort_keys"];

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(state: &mut State<'_, '_>, value: &Value, options: &Arguments) -> Result<Value, Error> {
    let indent = match options.get(1) {
        Some(indent) if !indent.is_none() => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let n_spaces = usize::try_from(options.integer(1, 0)?).unwrap_or(0);
                super::bounds::charge(state, n_spaces)?;
                " ".repeat(n_spaces)
            }
        }),
        _ => None,
    };
    let separators = match options.get(2).filter(|both| !both.is_none()) {
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
        Some(both) => {
            let both = both.try_iter()?.map(|text| text.as_str().map(str::to_owned));
            let both = both.collect::<Option<Vec<_>>>().and_then(|both| <[String; 2]>::try_from(both).ok());
            both.ok_or_else(|| type_error("tojson: `separators` are two strings"))?
        }
    };
    let mut writer = Writer {
        out: String::new(),
        limit: room(state) / BYTES_TO_A_BYTE,
        indent,
        separators,
        ensure_ascii: options.flag(0),
        sort_keys: options.flag(3),
    };
    writer.value(state, value, 0)?;
    super::bounds::charge(state, writer.out.len() * BYTES_TO_A_BYTE)?;
    Ok(Value::from(writer.out))
}

/// A byte of JSON costs as many of other text.
const BYTES_TO_A_BYTE: usize = 16;

struct Writer {
    out: String,
    limit: usize,
    indent: Option<String>,
    separators: [String; 2],
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Writer {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        if text.len() > self.limit.saturating_sub(self.out.len()) {
            return Err(Error::new(ErrorKind::OutOfFuel, "the JSON is too long"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(type_error("tojson: the value is nested too deep"));
        }
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.push(&scalar(value).unwrap_or_default())
            }
            ValueKind::Seq if value.is_tuple() || is_list(value) => {
                let n_items = value.len().unwrap_or(0);
                self.push("[")?;
                for (index, item) in value.try_iter()?.enumerate() {
                    self.begin_item(index, depth)?;
                    self.value(state, &item, depth + 1)?;
                }
                self.end("]", n_items, depth)
            }
            ValueKind::Map if is_dict(value) => self.map(state, value, depth),
            ValueKind::Undefined => {
                Err(Error::new(ErrorKind::UndefinedError, "tojson: an undefined value has no JSON"))
            }
            _ => {
                let lists = value.downcast_object_ref::<Generator>().is_some()
                    || value.downcast_object_ref::<View>().is_some();
                let advice = if lists { ": `| list` makes it a list that has" } else { "" };
                Err(type_error(format!("tojson: this kind of value has no JSON{advice}")))
            }
        }
    }

    fn map(&mut self, state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<_> = value.try_iter()?.collect();
        if self.sort_keys {
            keys = sorted(state, keys, Clone::clone)?;
        }
        self.push("{")?;
        for (index, key) in keys.iter().enumerate() {
            self.begin_item(index, depth)?;
            let name = match key.as_str() {
                Some(name) => name.to_owned(),
                None => scalar(key).ok_or_else(|| {
                    type_error("tojson: a key must be a string, a number, a boolean or none")
                })?,
            };
            self.text(&name)?;
            let separator = self.separators[1].clone();
            self.push(&separator)?;
            self.value(state, &value.get_item(key)?, depth + 1)?;
        }
        self.end("}", keys.len(), depth)
    }

    fn begin_item(&mut self, index: usize, depth: usize) -> Result<(), Error> {
        if index > 0 {
            let separator = self.separators[0].clone();
            self.push(&separator)?;
        }
        self.new_line(depth + 1)
    }

    fn end(&mut self, bracket: &str, n_items: usize, depth: usize) -> Result<(), Error> {
        if n_items > 0 {
            self.new_line(depth)?;
        }
        self.push(bracket)
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent.clone() else { return Ok(()) };
        self.push("\n")?;
        (0..depth).try_for_each(|_| self.push(&indent))
    }

    fn text(&mut self, text: &str) -> Result<(), Error> {
        let mut out = String::from('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0C' => out.push_str("\\f"),
                _ if c < ' ' || self.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}"); // a string takes all
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
        self.push(&out)
    }
}

/// What is neither text nor has items.
fn scalar(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::None => Some("null".to_owned()),
        ValueKind::Bool => Some(if value.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number if value.is_integer() => Some(value.to_string()),
        ValueKind::Number => {
            let number = f64::try_from(value.clone()).ok()?;
            Some(match number {
                _ if number.is_nan() => "NaN".to_owned(),
                f64::INFINITY => "Infinity".to_owned(),
                f64::NEG_INFINITY => "-Infinity".to_owned(),
                _ => float(number),
            })
        }
        _ => None,
    }
}
