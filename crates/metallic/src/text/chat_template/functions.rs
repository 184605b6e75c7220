//! What Hugging Face transformers adds to Jinja for chat templates.

use std::fmt::Write as _;

use jiff::civil::DateTime;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value, escape_formatter};
use serde::Serialize;

use super::generator::{self, Generator};
use super::python_json::{Limited, PythonFormatter, Style};

/// The name of the filter through which values go that a template gives a name to.
pub(super) const BOUNDED: &str = "metallic_bounded";

/// How deep lists and dictionaries may nest in a value that has a name. Descriptions of tools have about ten.
const MAX_VALUE_DEPTH: usize = 64;

/// How many items such a value may have, those of items included. A long conversation has some ten thousand.
const MAX_VALUE_ITEMS: usize = 1 << 20;

/// Items of such values for one unit of fuel.
const ITEMS_A_FUEL: usize = 64;

/// Bytes of JSON for one unit of fuel, as the engine charges for its own.
const JSON_BYTES_A_FUEL: u64 = 4;

/// Adds the functions and filters, and the methods that Python's strings, lists and dictionaries have.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_filter(BOUNDED, bounded);
    environment.add_function("raise_exception", raise_exception);
    environment.add_test("iterable", is_iterable);
    environment.set_formatter(write_value);
    generator::add_to(environment);
}

/// As the engine writes values, but with Python's choice of what to escape for HTML and how.
fn write_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if *state.auto_escape() != AutoEscape::Html || value.is_safe() {
        return escape_formatter(out, state, value);
    }
    for character in value.to_string().chars() {
        match character {
            '&' => out.write_str("&amp;"),
            '<' => out.write_str("&lt;"),
            '>' => out.write_str("&gt;"),
            '\'' => out.write_str("&#39;"),
            '"' => out.write_str("&#34;"),
            _ => out.write_char(character),
        }?;
    }
    Ok(())
}

/// As in Python, where `None` can't be iterated over.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// The value itself, if it is not so large or so deep that working with it could overflow the stack or never
/// end: a list can hold another twice, which holds another twice, and so on. `into_namespace` says that the value
/// becomes part of a namespace.
fn bounded(state: &State<'_, '_>, value: Value, into_namespace: bool) -> Result<Value, Error> {
    let mut n_items = 0;
    count_items(&value, usize::from(into_namespace), &mut n_items)?;
    state.consume_fuel((n_items / ITEMS_A_FUEL) as u64)?;
    Ok(value)
}

fn count_items(value: &Value, depth: usize, n_items: &mut usize) -> Result<(), Error> {
    let Some(object) = value.as_object() else { return Ok(()) };
    // A namespace is the one thing that can be changed, and so made to contain itself.
    let contains_namespace = depth > 0 && object.type_name().ends_with("Namespace");
    if depth > MAX_VALUE_DEPTH || contains_namespace {
        let reason = if contains_namespace { "contains a namespace" } else { "is nested too deep" };
        return Err(Error::new(ErrorKind::InvalidOperation, format!("a value {reason}")));
    }
    *n_items = n_items.saturating_add(value.len().unwrap_or(0));
    if *n_items > MAX_VALUE_ITEMS {
        return Err(Error::new(ErrorKind::OutOfFuel, "a value is too large"));
    }
    let is_map = value.kind() == ValueKind::Map;
    if is_map || value.kind() == ValueKind::Seq || value.downcast_object_ref::<Generator>().is_some() {
        for item in value.try_iter()? {
            let item = if is_map { value.get_item(&item)? } else { item };
            count_items(&item, depth + 1, n_items)?;
        }
    }
    Ok(())
}

/// The template says that it can't render the conversation. Its words are the source of the error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// What the template has said, if the error is its own.
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// `strftime_now(format)`: a time as text.
pub(super) fn strftime(now: DateTime) -> Value {
    Value::from_function(move |format: &str| {
        jiff::fmt::strtime::format(format, now)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

/// `tojson`: what `json.dumps` gives, with characters outside ASCII as they are unless asked otherwise.
fn to_json(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let between_items = if indent.is_some() { "," } else { ", " };
    let separators = match options.get::<Option<Vec<String>>>("separators")? {
        None => (between_items.to_owned(), ": ".to_owned()),
        Some(both) => <[String; 2]>::try_from(both)
            .map(Into::into)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: separators are two strings"))?,
    };
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let style = Style { indent, separators, ensure_ascii };
    options.assert_all_used()?;
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "an undefined value has no JSON"));
    }
    if value.downcast_object_ref::<Generator>().is_some() {
        let message = "a generator has no JSON: `| list` makes it a list that has";
        return Err(Error::new(ErrorKind::BadSerialization, message));
    }

    let (_, fuel) = state.fuel_levels().unwrap_or((0, super::RENDER_FUEL));
    let out = Limited { bytes: Vec::new(), limit: fuel.saturating_mul(JSON_BYTES_A_FUEL) as usize };
    let mut serializer = serde_json::Serializer::with_formatter(out, PythonFormatter::new(&style));
    let failed = |e: serde_json::Error| {
        let kind = if e.is_io() { ErrorKind::OutOfFuel } else { ErrorKind::BadSerialization };
        Error::new(kind, "tojson failed").with_source(e)
    };
    value.serialize(&mut serializer).map_err(failed)?;
    let bytes = serializer.into_inner().bytes;
    state.consume_fuel(bytes.len() as u64 / JSON_BYTES_A_FUEL)?;
    let json = String::from_utf8(bytes);
    json.map_err(|e| Error::new(ErrorKind::BadSerialization, "tojson failed").with_source(e))
}
