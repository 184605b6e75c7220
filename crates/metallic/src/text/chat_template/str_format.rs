//! `'{}: {:5.1f}'.format(name, number)`.

use minijinja::value::Kwargs;
use minijinja::{Error, State, Value};

use super::arguments::type_error;
use super::bounds::charge;
use super::numbers::Number;
use super::printf::{ascii, character};
use super::python_repr::{repr, text};
use super::spec::Spec;

/// `format.format(*by_place, **by_name)`.
pub(super) fn format(
    state: &State<'_, '_>,
    format: &str,
    by_place: &[Value],
    by_name: &Kwargs,
) -> Result<String, Error> {
    let mut fields = Fields { state, by_place, by_name, next: 0, are_numbered: None };
    fields.write(format, 0)
}

struct Fields<'a> {
    state: &'a State<'a, 'a>,
    by_place: &'a [Value],
    by_name: &'a Kwargs,
    /// Which value a field without a name takes.
    next: usize,
    /// Whether fields have numbers: all have, or none.
    are_numbered: Option<bool>,
}

impl Fields<'_> {
    fn write(&mut self, format: &str, depth: usize) -> Result<String, Error> {
        if depth > 1 {
            return Err(type_error("format: fields are nested too deep"));
        }
        let (mut out, mut rest) = (String::new(), format);
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let bracket = &rest[at..=at];
            rest = &rest[at + 1..];
            if rest.starts_with(bracket) {
                out.push_str(bracket);
                rest = &rest[1..];
            } else if bracket == "}" {
                return Err(type_error("format: a single '}' in the text"));
            } else {
                let len = field_len(rest).ok_or_else(|| type_error("format: a field has no end"))?;
                out.push_str(&self.field(&rest[..len], depth)?);
                charge(self.state, out.len())?;
                rest = &rest[len + 1..];
            }
        }
        Ok(out + rest)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = name.split_once('!').unwrap_or((name, ""));
        let value = self.value(name)?;
        let spec = if spec.contains('{') { self.write(spec, depth + 1)? } else { spec.to_owned() };
        let converted = match conversion {
            "" => value,
            "s" => Value::from(text(self.state, &value)?),
            "r" => Value::from(repr(self.state, &value)?),
            "a" => Value::from(ascii(&repr(self.state, &value)?)),
            _ => return Err(type_error(format!("format: the conversion {conversion:?} is not known"))),
        };
        with_spec(self.state, &converted, &spec)
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let len = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(len);
        let missing = || type_error(format!("format: there is no value for {{{name}}}"));
        let place = if first.is_empty() {
            self.next += 1;
            Some(self.next - 1)
        } else {
            first.parse().ok()
        };
        if place.is_some() && *self.are_numbered.get_or_insert(!first.is_empty()) == first.is_empty() {
            return Err(type_error("format: either all fields have numbers, or none"));
        }
        let mut value = match place {
            Some(place) => self.by_place.get(place).cloned().ok_or_else(missing)?,
            None if self.by_name.has(first) => self.by_name.get(first)?,
            None => return Err(missing()),
        };
        while !rest.is_empty() {
            let (key, after) = if let Some(inside) = rest.strip_prefix('[') {
                let (key, after) = inside.split_once(']').ok_or_else(missing)?;
                (key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from), after)
            } else {
                let inside = &rest[1..];
                let len = inside.find(['.', '[']).unwrap_or(inside.len());
                (Value::from(&inside[..len]), &inside[len..])
            };
            value = value.get_item(&key)?;
            if value.is_undefined() {
                return Err(missing());
            }
            rest = after;
        }
        Ok(value)
    }
}

/// How long a field is, up to the bracket that closes it.
fn field_len(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| match c {
        '}' if depth == 0 => Some(at),
        _ => {
            depth += usize::from(c == '{');
            depth -= usize::from(c == '}');
            None
        }
    })
}

/// `format(value, spec)`.
fn with_spec(state: &State<'_, '_>, value: &Value, spec: &str) -> Result<String, Error> {
    if spec.is_empty() {
        return text(state, value);
    }
    let spec = Spec::parse(spec)?;
    match (value.as_str(), Number::of(value)) {
        (Some(text), _) => spec.text(state, text),
        (None, Some(number)) if spec.kind == Some('c') => {
            let c = character(&number.into_value())?;
            Spec { kind: None, align: spec.align.or(Some('<')), ..spec }.text(state, &c)
        }
        (None, Some(number)) => spec.number(state, number),
        (None, None) => Err(type_error("format: this kind of value takes no layout")),
    }
}
