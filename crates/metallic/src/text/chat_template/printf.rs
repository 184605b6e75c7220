//! `'%s: %5.1f' % (name, number)`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::value::ValueKind;
use minijinja::{Error, State, Value};

use super::arguments::{integer, type_error};
use super::numbers::Number;
use super::python_repr::{repr, text};
use super::sequences::is_dict;
use super::spec::Spec;

/// `format % arguments`: one value, a tuple of them, or a dictionary of named ones.
pub(super) fn format(state: &State<'_, '_>, format: &str, arguments: &Value) -> Result<String, Error> {
    let values = if arguments.is_tuple() { arguments.try_iter()?.collect() } else { vec![arguments.clone()] };
    let mut reader = Reader { chars: format.chars().peekable(), values: values.into_iter(), arguments };
    let mut out = String::new();
    while let Some(c) = reader.chars.next() {
        if c != '%' || reader.chars.next_if_eq(&'%').is_some() {
            out.push(c);
        } else {
            out.push_str(&reader.directive(state)?);
        }
    }
    // What can be asked for items by name or place may have more of them than are used.
    let has_items = matches!(arguments.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Undefined);
    if reader.values.next().is_some() && (arguments.is_tuple() || !has_items) {
        return Err(type_error("`%` has more values than places for them"));
    }
    Ok(out)
}

struct Reader<'f> {
    chars: Peekable<Chars<'f>>,
    values: std::vec::IntoIter<Value>,
    arguments: &'f Value,
}

impl Reader<'_> {
    /// What stands for a value, after its `%`.
    fn directive(&mut self, state: &State<'_, '_>) -> Result<String, Error> {
        let named = self.named()?;
        let flags: String = std::iter::from_fn(|| self.chars.next_if(|c| "-+ #0".contains(*c))).collect();
        let width = self.size()?;
        let precision = if self.chars.next_if_eq(&'.').is_some() { Some(self.size()?) } else { None };
        while self.chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let conversion = self.chars.next().ok_or_else(|| type_error("`%` has no end"))?;
        let value = match named {
            Some(value) => value,
            None => self.value()?,
        };
        let spec = Spec {
            align: if flags.contains('-') || width < 0 { Some('<') } else { Some('>') },
            sign: ["+", " "].into_iter().find(|sign| flags.contains(sign)).unwrap_or(""),
            alternate: flags.contains('#'),
            width: usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX),
            precision: precision.map(|n| usize::try_from(n).unwrap_or(0)),
            ..Spec::default()
        };
        converted(state, spec, conversion, flags.contains('0'), &value)
    }

    /// The value whose name stands in parentheses, if one does.
    fn named(&mut self) -> Result<Option<Value>, Error> {
        if self.chars.next_if_eq(&'(').is_none() {
            return Ok(None);
        }
        let name: String = self.chars.by_ref().take_while(|&c| c != ')').collect();
        // From the first name on, values have names.
        self.values = Vec::new().into_iter();
        let value = if is_dict(self.arguments) { self.arguments.get_attr(&name)? } else { Value::UNDEFINED };
        if value.is_undefined() {
            return Err(type_error(format!("`%` has no value of the name {name:?}")));
        }
        Ok(Some(value))
    }

    fn value(&mut self) -> Result<Value, Error> {
        self.values.next().ok_or_else(|| type_error("`%` has too few values"))
    }

    /// A width or a precision, zero without one. A star stands for the next value.
    fn size(&mut self) -> Result<i64, Error> {
        if self.chars.next_if_eq(&'*').is_some() {
            return integer(&self.value()?).ok_or_else(|| type_error("`%*` needs an integer"));
        }
        let digits: String = std::iter::from_fn(|| self.chars.next_if(char::is_ascii_digit)).collect();
        Ok(if digits.is_empty() { 0 } else { digits.parse().unwrap_or(i64::MAX) })
    }
}

/// A value as `%` writes it, with the letter that says how.
fn converted(
    state: &State<'_, '_>,
    mut spec: Spec,
    conversion: char,
    with_zeros: bool,
    value: &Value,
) -> Result<String, Error> {
    let text = match conversion {
        's' => text(state, value)?,
        'r' => repr(state, value)?,
        'a' => ascii(&repr(state, value)?),
        'c' => {
            spec.precision = None;
            character(value)?
        }
        _ => return converted_number(state, spec, conversion, with_zeros, value),
    };
    (spec.sign, spec.alternate) = ("", false);
    spec.text(state, &text)
}

fn converted_number(
    state: &State<'_, '_>,
    mut spec: Spec,
    conversion: char,
    with_zeros: bool,
    value: &Value,
) -> Result<String, Error> {
    let number = Number::of(value).ok_or_else(|| type_error(format!("`%{conversion}` needs a number")))?;
    if with_zeros && spec.align == Some('>') {
        (spec.fill, spec.align) = (Some('0'), Some('='));
    }
    let kind = if matches!(conversion, 'i' | 'u') { 'd' } else { conversion };
    spec.kind = Some(kind);
    let number = match (kind, number) {
        ('d', Number::Float(float)) if float.abs() < 1e38 => Number::Integer(float.trunc() as i128),
        ('d' | 'x' | 'X' | 'o', Number::Integer(_)) | ('e' | 'E' | 'f' | 'F' | 'g' | 'G', _) => number,
        _ => return Err(type_error(format!("`%{conversion}` can't write this number"))),
    };
    let Some(n_digits) = spec.precision.filter(|_| matches!(kind, 'd' | 'x' | 'X' | 'o')) else {
        return spec.number(state, number);
    };
    // The precision of an integer is how many digits it has at least.
    let digits = Spec { fill: Some('0'), align: Some('='), width: 0, precision: None, ..spec };
    let least = digits.number(state, number)?;
    let n_head = least.len() - least.trim_start_matches(['+', '-', ' ']).len();
    let n_head = n_head + if digits.alternate && kind != 'd' { 2 } else { 0 };
    let digits = Spec { width: n_digits.saturating_add(n_head), ..digits }.number(state, number)?;
    Spec {
        align: spec.align.filter(|align| *align == '<').or(Some('>')),
        width: spec.width,
        ..Spec::default()
    }
    .text(state, &digits)
}

/// A character, or the one of a number.
pub(super) fn character(value: &Value) -> Result<String, Error> {
    let code = integer(value).and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32);
    match (code, value.as_str()) {
        (Some(c), _) => Ok(c.to_string()),
        (None, Some(text)) if text.chars().count() == 1 => Ok(text.to_owned()),
        _ => Err(type_error("`%c` needs a character or its number")),
    }
}

/// A text with escapes for what is not in ASCII.
pub(super) fn ascii(text: &str) -> String {
    let escape = |c: char| match u32::from(c) {
        code @ 0x80..=0xFF => format!("\\x{code:02x}"),
        code @ 0x100..=0xFFFF => format!("\\u{code:04x}"),
        code @ 0x10000.. => format!("\\U{code:08x}"),
        _ => c.to_string(),
    };
    text.chars().map(escape).collect()
}
