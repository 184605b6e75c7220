//! Jinja's tests: what stands after `is`.

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::arguments::type_error;
use super::operators::{compare, contains, modulo};
use super::python_repr::text;
use super::sequences::{View, is_dict, is_list};

type Result<T> = std::result::Result<T, Error>;
/// What a test asks of a value.
type Check = fn(&State<'_, '_>, &Value) -> Result<bool>;
/// What a test asks of two.
type Relation = fn(&State<'_, '_>, &Value, &Value) -> Result<bool>;

const CHECKS: &[(&str, Check)] = &[
    ("boolean", |_, value| Ok(value.kind() == ValueKind::Bool)),
    ("callable", |_, value| Ok(is_callable(value))),
    ("defined", |_, value| Ok(!value.is_undefined())),
    ("escaped", |_, value| Ok(value.is_safe())),
    ("even", |state, value| Ok(modulo(state, value, &Value::from(2))? == Value::from(0))),
    ("false", |_, value| Ok(value.kind() == ValueKind::Bool && !value.is_true())),
    ("filter", |state, value| is_name(value, |name| minijinja::tests::is_filter(state, name))),
    ("float", |_, value| Ok(value.is_number() && !value.is_integer())),
    ("integer", |_, value| Ok(value.is_integer())),
    // In Python, `None` can't be iterated over.
    ("iterable", |_, value| {
        let is_other_map = value.kind() == ValueKind::Map && !is_dict(value);
        Ok(!value.is_none() && !is_other_map && value.try_iter().is_ok())
    }),
    ("lower", |state, value| is_cased(state, value, char::is_lowercase, char::is_uppercase)),
    ("mapping", |_, value| Ok(is_dict(value))),
    ("none", |_, value| Ok(value.is_none())),
    ("number", |_, value| Ok(value.is_number() || value.kind() == ValueKind::Bool)),
    ("odd", |state, value| Ok(modulo(state, value, &Value::from(2))? == Value::from(1))),
    ("sequence", |_, value| {
        Ok(matches!(value.kind(), ValueKind::Seq | ValueKind::String)
            || is_dict(value)
            || value.is_undefined())
    }),
    ("string", |_, value| Ok(value.kind() == ValueKind::String)),
    ("test", |state, value| is_name(value, |name| minijinja::tests::is_test(state, name))),
    ("true", |_, value| Ok(value.kind() == ValueKind::Bool && value.is_true())),
    ("undefined", |_, value| Ok(value.is_undefined())),
    ("upper", |state, value| is_cased(state, value, char::is_uppercase, char::is_lowercase)),
];

const RELATIONS: &[(&str, Relation)] = &[
    ("divisibleby", |state, value, by| Ok(modulo(state, value, by)? == Value::from(0))),
    ("==", |_, a, b| Ok(a == b)),
    ("eq", |_, a, b| Ok(a == b)),
    ("equalto", |_, a, b| Ok(a == b)),
    ("!=", |_, a, b| Ok(a != b)),
    ("ne", |_, a, b| Ok(a != b)),
    (">", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_gt()))),
    ("gt", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_gt()))),
    ("greaterthan", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_gt()))),
    (">=", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_ge()))),
    ("ge", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_ge()))),
    ("<", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_lt()))),
    ("lt", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_lt()))),
    ("lessthan", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_lt()))),
    ("<=", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_le()))),
    ("le", |_, a, b| Ok(compare(a, b)?.is_some_and(|order| order.is_le()))),
    ("in", |state, item, container| contains(state, container, item)),
];

pub(super) fn add_to(environment: &mut Environment<'static>) {
    for &(name, check) in CHECKS {
        environment.add_test(name, move |state: &State<'_, '_>, value: Value, more: Rest<Value>| {
            if more.is_empty() {
                check(state, &value)
            } else {
                Err(type_error(format!("{name} compares nothing")))
            }
        });
    }
    for &(name, relation) in RELATIONS {
        environment.add_test(name, move |state: &State<'_, '_>, a: Value, b: Value| relation(state, &a, &b));
    }
    environment.add_test("sameas", minijinja::tests::is_sameas);
}

/// Whether a value is a name that is known. What has items that can change is no key to look up.
fn is_name(value: &Value, is_known: impl Fn(&str) -> bool) -> Result<bool> {
    match value.as_str() {
        Some(name) => Ok(is_known(name)),
        None if is_list(value) || is_dict(value) || value.downcast_object_ref::<View>().is_some() => {
            Err(type_error("only a string is a name"))
        }
        None => Ok(false),
    }
}

fn is_callable(value: &Value) -> bool {
    let of_type = |name: &str| {
        ["Bound", "Function", "Macro", "Collector", "Joiner"].iter().any(|callable| name.contains(callable))
    };
    // What is undefined has the method that makes it callable, and fails.
    value.is_undefined() || value.as_object().is_some_and(|object| of_type(object.type_name()))
}

fn is_cased(
    state: &State<'_, '_>,
    value: &Value,
    has: fn(char) -> bool,
    lacks: fn(char) -> bool,
) -> Result<bool> {
    let text = text(state, value)?;
    Ok(text.chars().any(has) && !text.chars().any(lacks))
}
