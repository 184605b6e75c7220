//! Methods of lists, tuples and dictionaries.

use minijinja::value::Tuple;
use minijinja::{Error, State, Value};

use super::super::arguments::type_error;
use super::super::sequences::{View, items};
use super::Method;

const COUNT: Method = ("count", &["/value"], |state, value, arguments| {
    let wanted = arguments.value(0)?;
    Ok(Value::from(items(state, value)?.iter().filter(|item| *item == wanted).count()))
});

const INDEX: Method = ("index", &["/value", "/start", "/stop"], |state, value, arguments| {
    let (items, wanted) = (items(state, value)?, arguments.value(0)?);
    let bound =
        |at: i64| (if at < 0 { at + items.len() as i64 } else { at }).clamp(0, items.len() as i64) as usize;
    let (start, stop) = (bound(arguments.integer(1, 0)?), bound(arguments.integer(2, i64::MAX)?));
    let found = items[..stop].iter().skip(start).position(|item| item == wanted);
    found.map(|at| Value::from(start + at)).ok_or_else(|| type_error("index: the value is not in the list"))
});

pub(super) const TUPLE_METHODS: &[Method] = &[COUNT, INDEX];

pub(super) const LIST_METHODS: &[Method] =
    &[COUNT, INDEX, ("copy", &[], |state, value, _| items(state, value).map(Value::from))];

pub(super) const DICT_METHODS: &[Method] = &[
    ("get", &["/key", "/default"], |_, value, arguments| {
        let found = value.get_item(arguments.value(0)?)?;
        Ok(match arguments.get(1) {
            _ if !found.is_undefined() => found,
            Some(default) => default.clone(),
            None => Value::from(()),
        })
    }),
    ("keys", &[], |state, value, _| Ok(view("dict_keys", items(state, value)?))),
    ("values", &[], |state, value, _| {
        let values = items(state, value)?.iter().map(|key| value.get_item(key)).collect::<Result<_, _>>()?;
        Ok(view("dict_values", values))
    }),
    ("items", &[], |state, value, _| Ok(view("dict_items", pairs(state, value)?))),
    ("copy", &[], |state, value, _| {
        let keys = items(state, value)?;
        let pairs = keys.into_iter().map(|key| Ok((key.clone(), value.get_item(&key)?)));
        Ok(Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?))
    }),
];

fn view(name: &'static str, items: Vec<Value>) -> Value {
    Value::from_object(View { name, items })
}

/// A dictionary's keys and values, as tuples.
pub(in super::super) fn pairs(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let keys = items(state, value)?;
    keys.into_iter()
        .map(|key| {
            let item = value.get_item(&key)?;
            Ok(Value::from(Tuple::from([key, item])))
        })
        .collect()
}
