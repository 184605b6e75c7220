//! `map`, and the filters that keep some items: what they do to each is another filter or a test.

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::super::arguments::type_error;
use super::super::sequences::{Generator, items};
use super::sequences::at_path;

type Result<T> = std::result::Result<T, Error>;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    let lazy_map = |state: &mut State<'_, '_>, value: Value, by_place: Rest<Value>, by_name: Kwargs| {
        Generator::lazy(map(state, value, by_place, by_name))
    };
    environment.add_filter("map", lazy_map);
    for (name, has_attribute, keeps) in [
        ("select", false, true),
        ("reject", false, false),
        ("selectattr", true, true),
        ("rejectattr", true, false),
    ] {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>, value: Value, arguments: Rest<Value>| {
                Generator::lazy(select(state, &value, &arguments, has_attribute, keeps))
            },
        );
    }
}

fn map(state: &mut State<'_, '_>, value: Value, by_place: Rest<Value>, by_name: Kwargs) -> Result<Value> {
    // Like the filters below, it gives nothing for what is false, be it none.
    if !value.is_true() {
        return Ok(Generator::value(Vec::new()));
    }
    if by_place.is_empty() && by_name.has("attribute") {
        let attribute: Value = by_name.get("attribute")?;
        let default: Option<Value> =
            if by_name.has("default") { Some(by_name.get("default")?) } else { None };
        by_name.assert_all_used()?;
        let mapped = items(state, &value)?.into_iter().map(|item| {
            let found = at_path(&item, Some(&attribute))?;
            Ok(if found.is_undefined() { default.clone().unwrap_or(found) } else { found })
        });
        return mapped.collect::<Result<Vec<_>>>().map(Generator::value);
    }
    let (filter, rest) =
        by_place.split_first().ok_or_else(|| type_error("map needs a filter or an attribute"))?;
    let filter = filter.as_str().ok_or_else(|| type_error("map: a filter's name is a string"))?;
    let mut arguments = vec![Value::UNDEFINED];
    arguments.extend(rest.iter().cloned());
    if by_name.args().next().is_some() {
        arguments.push(Value::from(by_name));
    }
    let mut mapped = Vec::new();
    for item in items(state, &value)? {
        arguments[0] = item;
        mapped.push(state.apply_filter(filter, &arguments)?);
    }
    Ok(Generator::value(mapped))
}

fn select(
    state: &mut State<'_, '_>,
    value: &Value,
    arguments: &[Value],
    has_attribute: bool,
    keeps: bool,
) -> Result<Value> {
    if !value.is_true() {
        return Ok(Generator::value(Vec::new()));
    }
    let (attribute, arguments) = match arguments.split_first() {
        Some((attribute, rest)) if has_attribute => (Some(attribute), rest),
        None if has_attribute => {
            return Err(Error::new(ErrorKind::MissingArgument, "an attribute's name is missing"));
        }
        _ => (None, arguments),
    };
    let mut test_arguments = vec![Value::UNDEFINED];
    let test = match arguments.split_first() {
        Some((name, rest)) => {
            test_arguments.extend(rest.iter().cloned());
            Some(name.as_str().ok_or_else(|| type_error("a test's name is a string"))?.to_owned())
        }
        None => None,
    };
    let mut kept = Vec::new();
    for item in items(state, value)? {
        test_arguments[0] = at_path(&item, attribute)?;
        let holds = match &test {
            Some(test) => state.perform_test(test, &test_arguments)?,
            None => test_arguments[0].is_true(),
        };
        if holds == keeps {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}
