//! Python's operators, which [`super::expression`] writes as filters.

use std::cmp::Ordering;

use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::{AutoEscape, Environment, Error, State, Value};

use super::arguments::{integer, type_error};
use super::bounds::{self, BOUNDED, charge};
use super::numbers::Number;
use super::python_repr::text;
use super::sequences::{self, Range, is_list, items};
use super::{html, methods, printf};

type Result<T> = std::result::Result<T, Error>;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(BOUNDED, |state: &State<'_, '_>, value: Value, into: bool| {
        bounds::bounded(state, value, into)
    });
    environment
        .add_filter("py_iter", |state: &State<'_, '_>, value: Value| sequences::iterable(state, value));
    environment.add_filter("py_unpack", sequences::unpacked);
    environment.add_filter("py_attr", |value: Value, name: &str| methods::attribute(&value, name));
    environment.add_filter("py_slice", slice);
    environment.add_filter("py_concat", concat);
    environment
        .add_filter("py_in", |state: &State<'_, '_>, item: Value, of: Value| contains(state, &of, &item));
    environment.add_filter("py_neg", |value: Value| numeric(&value)?.neg().map(Number::into_value));
    environment.add_filter("py_pos", |value: Value| numeric(&value).map(Number::into_value));
    for (name, operator) in [
        ("py_add", add as fn(&State<'_, '_>, &Value, &Value) -> Result<Value>),
        ("py_sub", |_, a, b| numbers(a, b, Number::sub)),
        ("py_mul", mul),
        ("py_div", |_, a, b| numbers(a, b, Number::div)),
        ("py_floordiv", |_, a, b| numbers(a, b, Number::floordiv)),
        ("py_mod", modulo),
        ("py_pow", |_, a, b| numbers(a, b, Number::pow)),
        ("py_lt", |_, a, b| Ok(Value::from(compare(a, b)?.is_some_and(Ordering::is_lt)))),
        ("py_le", |_, a, b| Ok(Value::from(compare(a, b)?.is_some_and(Ordering::is_le)))),
        ("py_gt", |_, a, b| Ok(Value::from(compare(a, b)?.is_some_and(Ordering::is_gt)))),
        ("py_ge", |_, a, b| Ok(Value::from(compare(a, b)?.is_some_and(Ordering::is_ge)))),
    ] {
        environment
            .add_filter(name, move |state: &State<'_, '_>, a: Value, b: Value| operator(state, &a, &b));
    }
}

fn numeric(value: &Value) -> Result<Number> {
    Number::of(value).ok_or_else(|| type_error(format!("{} is not a number", kind(value))))
}

fn numbers(a: &Value, b: &Value, operator: impl Fn(Number, Number) -> Result<Number>) -> Result<Value> {
    match (Number::of(a), Number::of(b)) {
        (Some(a), Some(b)) => operator(a, b).map(Number::into_value),
        _ => Err(no_operation("an arithmetic operator", a, b)),
    }
}

fn no_operation(operator: &str, a: &Value, b: &Value) -> Error {
    type_error(format!("{operator} can't join {} and {}", kind(a), kind(b)))
}

/// What a value is, in Python's words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "an undefined value",
        ValueKind::None => "none",
        ValueKind::Bool => "a boolean",
        ValueKind::Number if value.is_integer() => "an integer",
        ValueKind::Number => "a float",
        ValueKind::String => "a string",
        ValueKind::Seq if value.is_tuple() => "a tuple",
        ValueKind::Seq => "a list",
        ValueKind::Map => "a dictionary",
        _ => "an object",
    }
}

/// `a + b`.
pub(super) fn add(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        charge(state, left.len() + right.len())?;
        // What `safe` marks stays so, and what is added to it is escaped.
        return Ok(match (a.is_safe(), b.is_safe()) {
            (false, false) => Value::from([left, right].concat()),
            _ => Value::from_safe_string([html::escaped(a, left), html::escaped(b, right)].concat()),
        });
    }
    if is_list(a) && is_list(b) || a.is_tuple() && b.is_tuple() {
        let mut all = items(state, a)?;
        all.extend(items(state, b)?);
        return Ok(if a.is_tuple() { Value::from(Tuple::from(all)) } else { Value::from(all) });
    }
    numbers(a, b, Number::add)
}

fn mul(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value> {
    let (repeated, times) = if integer(a).is_some() { (b, a) } else { (a, b) };
    let times = integer(times).map(|times| usize::try_from(times).unwrap_or(0));
    let (Some(times), Some(_)) = (times, repeated.len().or(repeated.as_str().map(str::len))) else {
        return numbers(a, b, Number::mul);
    };
    if let Some(text) = repeated.as_str() {
        charge(state, text.len().saturating_mul(times))?;
        let text = text.repeat(times);
        return Ok(if repeated.is_safe() { Value::from_safe_string(text) } else { Value::from(text) });
    }
    if !is_list(repeated) && !repeated.is_tuple() {
        return Err(no_operation("`*`", a, b));
    }
    let items = items(state, repeated)?;
    charge(state, items.len().saturating_mul(times).saturating_mul(ITEM_BYTES))?;
    let all: Vec<_> = std::iter::repeat_n(items, times).flatten().collect();
    Ok(if repeated.is_tuple() { Value::from(Tuple::from(all)) } else { Value::from(all) })
}

/// What an item of a list takes in memory.
const ITEM_BYTES: usize = size_of::<Value>();

/// `a % b`.
pub(super) fn modulo(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value> {
    match a.as_str() {
        Some(format) => printf::format(state, format, b).map(Value::from),
        None => numbers(a, b, Number::modulo),
    }
}

/// `a ~ b ~ c`.
fn concat(state: &State<'_, '_>, first: Value, rest: Rest<Value>) -> Result<Value> {
    let all = || std::iter::once(&first).chain(rest.iter());
    let escapes = matches!(state.auto_escape(), AutoEscape::Html) && all().any(Value::is_safe);
    let mut out = String::new();
    for value in all() {
        let text = text(state, value)?;
        charge(state, text.len())?;
        out.push_str(&if escapes { html::escaped(value, &text) } else { text });
    }
    Ok(if escapes { Value::from_safe_string(out) } else { Value::from(out) })
}

/// `item in container`.
pub(super) fn contains(state: &State<'_, '_>, container: &Value, item: &Value) -> Result<bool> {
    if let Some(text) = container.as_str() {
        charge(state, text.len())?;
        return match item.as_str() {
            Some(part) => Ok(text.contains(part)),
            None => Err(type_error(format!("a string can't contain {}", kind(item)))),
        };
    }
    if container.kind() == ValueKind::Map {
        if is_list(item) || item.kind() == ValueKind::Map {
            return Err(type_error(format!("{} is no key", kind(item))));
        }
        return Ok(!container.get_item(item)?.is_undefined());
    }
    Ok(items(state, container)?.contains(item))
}

fn slice(state: &State<'_, '_>, value: Value, start: Value, stop: Value, step: Value) -> Result<Value> {
    let bound = |value: &Value| match integer(value) {
        Some(at) => Ok(Some(at)),
        None if value.is_none() => Ok(None),
        None => Err(type_error(format!("a slice can't go to {}", kind(value)))),
    };
    sequences::slice(state, &value, [bound(&start)?, bound(&stop)?, bound(&step)?])
}

/// Which of two is greater, of values that can be compared. `None` where one is not a number (NaN).
pub(super) fn compare(a: &Value, b: &Value) -> Result<Option<Ordering>> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Some(a.cmp(b)));
    }
    if a.kind() == ValueKind::Seq
        && b.kind() == ValueKind::Seq
        && a.is_tuple() == b.is_tuple()
        && !is_range(a, b)
    {
        for (a, b) in a.try_iter()?.zip(b.try_iter()?) {
            if a != b {
                return compare(&a, &b);
            }
        }
        return Ok(Some(a.len().cmp(&b.len())));
    }
    match (Number::of(a), Number::of(b)) {
        (Some(Number::Integer(a)), Some(Number::Integer(b))) => Ok(Some(a.cmp(&b))),
        (Some(a), Some(b)) => Ok(a.as_f64().partial_cmp(&b.as_f64())),
        _ => Err(type_error(format!("{} and {} can't be compared", kind(a), kind(b)))),
    }
}

fn is_range(a: &Value, b: &Value) -> bool {
    [a, b].iter().any(|value| value.downcast_object_ref::<Range>().is_some())
}

/// The items in the order of their keys; equal ones stay as they were.
pub(super) fn sorted(
    state: &State<'_, '_>,
    items: Vec<Value>,
    key: impl Fn(&Value) -> Value,
) -> Result<Vec<Value>> {
    charge(state, items.len() * (usize::BITS - items.len().leading_zeros()) as usize)?;
    let mut keyed: Vec<_> = items.into_iter().map(|item| (key(&item), item)).collect();
    let mut error = None;
    keyed.sort_by(|(a, _), (b, _)| match compare(a, b) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(e) => {
            error.get_or_insert(e);
            Ordering::Equal
        }
    });
    match error {
        Some(error) => Err(error),
        None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
    }
}
