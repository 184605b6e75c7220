//! What the engine's fuel does not count: how deep values nest, and the work of our own functions.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::sequences::Generator;

/// The name of the filter through which values go that a template gives a name to.
pub(super) const BOUNDED: &str = "py_bounded";

/// How deep lists and dictionaries may nest in a value that has a name. Descriptions of tools have about ten.
const MAX_VALUE_DEPTH: usize = 64;

/// How many items such a value may have, those of items included. A long conversation has some ten thousand.
const MAX_VALUE_ITEMS: usize = 1 << 20;

/// Items, or bytes of text, for one unit of fuel: as the engine charges for its own.
const A_FUEL: usize = 64;

/// Pays for going through so many items or writing so many bytes, before it is done.
pub(super) fn charge(state: &State<'_, '_>, n: usize) -> Result<(), Error> {
    state.consume_fuel((n / A_FUEL) as u64)
}

/// How many bytes may still be written.
pub(super) fn room(state: &State<'_, '_>) -> usize {
    let (_, fuel) = state.fuel_levels().unwrap_or((0, super::RENDER_FUEL));
    usize::try_from(fuel).unwrap_or(usize::MAX).saturating_mul(A_FUEL)
}

/// The value itself, if it is not so large or so deep that working with it could overflow the stack or never
/// end: a list can hold another twice, which holds another twice, and so on. `into_namespace` says that the value
/// becomes part of a namespace.
pub(super) fn bounded(state: &State<'_, '_>, value: Value, into_namespace: bool) -> Result<Value, Error> {
    let mut n_items = 0;
    count_items(&value, usize::from(into_namespace), &mut n_items)?;
    charge(state, n_items)?;
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
    if let Some(generator) = value.downcast_object_ref::<Generator>() {
        return generator.rest().iter().try_for_each(|item| count_one(item, depth, n_items));
    }
    match value.kind() {
        ValueKind::Map => {
            value.try_iter()?.try_for_each(|key| count_one(&value.get_item(&key)?, depth, n_items))
        }
        ValueKind::Seq => value.try_iter()?.try_for_each(|item| count_one(&item, depth, n_items)),
        _ => Ok(()),
    }
}

fn count_one(item: &Value, depth: usize, n_items: &mut usize) -> Result<(), Error> {
    *n_items += 1;
    if *n_items > MAX_VALUE_ITEMS {
        return Err(Error::new(ErrorKind::OutOfFuel, "a value is too large"));
    }
    count_items(item, depth + 1, n_items)
}
