//! The methods of Python's strings, lists, tuples, dictionaries and numbers that Jinja's sandbox allows: those
//! that change nothing.

pub(super) mod containers;
pub(super) mod strings;

use std::sync::Arc;

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::arguments::Arguments;
use super::sequences::{is_dict, is_list};
use super::str_format;

/// A method's name, its parameters, and what it does.
type Method =
    (&'static str, &'static [&'static str], fn(&State<'_, '_>, &Value, &Arguments) -> Result<Value, Error>);

/// The methods of a kind of value.
fn of_kind(value: &Value) -> &'static [Method] {
    match value.kind() {
        ValueKind::String => strings::METHODS,
        ValueKind::Number => NUMBER_METHODS,
        ValueKind::Seq if is_list(value) => containers::LIST_METHODS,
        ValueKind::Seq => containers::TUPLE_METHODS,
        ValueKind::Map if is_dict(value) => containers::DICT_METHODS,
        _ => &[],
    }
}

const NUMBER_METHODS: &[Method] = &[
    ("is_integer", &[], |_, value, _| {
        let number = f64::try_from(value.clone())?;
        Ok(Value::from(value.is_integer() || number.is_finite() && number.fract() == 0.0))
    }),
    ("conjugate", &[], |_, value, _| Ok(value.clone())),
    ("bit_length", &[], |_, value, _| {
        let bits = i128::try_from(value.clone()).map(|n| u128::BITS - n.unsigned_abs().leading_zeros());
        bits.map(Value::from)
    }),
];

/// Whether some kind of value has a method of this name.
pub(super) fn is_method(name: &str) -> bool {
    let all = [strings::METHODS, containers::LIST_METHODS, containers::DICT_METHODS, NUMBER_METHODS];
    name == FORMAT || all.iter().any(|methods| methods.iter().any(|(known, ..)| *known == name))
}

/// The method of strings that takes whatever it is given.
const FORMAT: &str = "format";

/// `value.name(…)`, where the value has no such method of the engine's.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let (by_place, by_name): (Rest<Value>, Kwargs) = from_args(arguments)?;
    if let Some(text) = value.as_str().filter(|_| name == FORMAT) {
        return str_format::format(state, text, &by_place, &by_name).map(Value::from);
    }
    let method = of_kind(value).iter().find(|(known, ..)| *known == name);
    let (name, parameters, method) = method.ok_or(Error::from(ErrorKind::UnknownMethod))?;
    method(state, value, &Arguments::bind(name, parameters, &by_place, &by_name)?)
}

/// `value.name`, of a name that some method has: the method comes before an item of that name.
pub(super) fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    let is_its = of_kind(value).iter().any(|(known, ..)| *known == name);
    if is_its || name == FORMAT && value.as_str().is_some() {
        return Ok(Value::from_object(Bound { value: value.clone(), name: name.to_owned() }));
    }
    value.get_attr(name)
}

/// A method that is not called yet.
#[derive(Debug)]
struct Bound {
    value: Value,
    name: String,
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        call(state, &self.value, &self.name, arguments)
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<built-in method {}>", self.name)
    }
}
