//! Values as text: what Python's `str` and `repr` write.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::bounds::room;
use super::sequences::{Generator, Group, Range, View};

/// How deep a value may nest that is written.
const MAX_DEPTH: usize = 256;

/// `str(value)`. What a template has not defined is empty.
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if value.is_undefined() {
        return Ok(String::new());
    }
    repr(state, value)
}

/// `repr(value)`.
pub(super) fn repr(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut writer = Writer { out: String::new(), limit: room(state) };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    limit: usize,
}

impl Writer {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        if text.len() > self.limit - self.out.len() {
            return Err(Error::new(ErrorKind::OutOfFuel, "a value's text is too long"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deep"));
        }
        if let Some(view) = value.downcast_object_ref::<View>() {
            self.push(view.name)?;
            return self.items(["([", "])"], view.items.iter().cloned(), depth);
        }
        if let Some(group) = value.downcast_object_ref::<Group>() {
            return self.value(&group.as_tuple(), depth);
        }
        if let Some(range) = value.downcast_object_ref::<Range>() {
            return self.push(&range.to_string());
        }
        if value.downcast_object_ref::<Generator>().is_some() {
            return self.push("<generator object>");
        }
        let is_namespace = value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace"));
        match value.kind() {
            ValueKind::String if value.is_safe() => {
                self.push(&format!("Markup({})", quoted(value.as_str().unwrap_or_default())))
            }
            ValueKind::String => self.push(&quoted(value.as_str().unwrap_or_default())),
            ValueKind::Undefined => self.push("Undefined"),
            ValueKind::Number if !value.is_integer() => {
                let number = f64::try_from(value.clone())?;
                self.push(&float(number))
            }
            ValueKind::Seq if value.is_tuple() => {
                let close = if value.len() == Some(1) { ",)" } else { ")" };
                self.items(["(", close], value.try_iter()?, depth)
            }
            ValueKind::Seq => self.items(["[", "]"], value.try_iter()?, depth),
            ValueKind::Map if value.as_object().is_some_and(|map| map.type_name().ends_with("Macro")) => {
                self.push(&format!("<Macro {}>", quoted(&value.get_attr("name")?.to_string())))
            }
            ValueKind::Map => {
                self.push(if is_namespace { "<Namespace {" } else { "{" })?;
                for (index, key) in value.try_iter()?.enumerate() {
                    self.push(if index > 0 { ", " } else { "" })?;
                    self.value(&key, depth + 1)?;
                    self.push(": ")?;
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.push(if is_namespace { "}>" } else { "}" })
            }
            _ => self.push(&value.to_string()),
        }
    }

    fn items(
        &mut self,
        [open, close]: [&str; 2],
        items: impl Iterator<Item = Value>,
        depth: usize,
    ) -> Result<(), Error> {
        self.push(open)?;
        for (index, item) in items.enumerate() {
            self.push(if index > 0 { ", " } else { "" })?;
            self.value(&item, depth + 1)?;
        }
        self.push(close)
    }
}

/// The shortest digits that are this number again, with an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    // Rust's has the same digits and bounds, but writes `1e-7` and `1e16`.
    let digits = format!("{number:?}");
    match digits.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{}e{sign}{exponent:0>2}", digits.strip_suffix(".0").unwrap_or(digits))
        }
        None => digits,
    }
}

/// A string in the quotes that it has not, with what can't be seen escaped.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => out.extend(['\\', c]),
            _ if is_printable(c) => out.push(c),
            _ if u32::from(c) <= 0xFF => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if u32::from(c) <= 0xFFFF => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push(quote);
    out
}

/// Whether Python shows a character as it is: not those of Unicode's categories Cc, Cf, Co, Zl, Zp and Zs, but
/// the space. Code points that mean nothing yet (Cn) count as printable here.
pub(super) fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c,
                '\u{AD}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}' | '\u{891}'
                | '\u{8E2}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
                | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
                | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}' | '\u{E0001}' | '\u{E0020}'..='\u{E007F}'
                | '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{10FFFF}'))
}
