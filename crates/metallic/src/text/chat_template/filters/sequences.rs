//! Filters of lists and dictionaries.

use std::collections::HashSet;

use minijinja::{Error, State, Value};

use super::super::arguments::{Arguments, type_error};
use super::super::bounds::charge;
use super::super::html;
use super::super::methods::{self, containers};
use super::super::operators::{add, compare, kind, sorted};
use super::super::python_repr;
use super::super::sequences::{Generator, Group, is_dict, is_list, items};
use super::text::folded;

type Result<T> = std::result::Result<T, Error>;

/// The attribute of an item that a filter looks at: a path such as `a.b.0`, or a number. `None` is the item itself.
pub(super) fn at_path(item: &Value, path: Option<&Value>) -> Result<Value> {
    let Some(path) = path else { return Ok(item.clone()) };
    let Some(path) = path.as_str() else { return item.get_item(path) };
    let mut value = item.clone();
    for part in path.split('.') {
        let index = if part.bytes().all(|b| b.is_ascii_digit()) { part.parse::<i64>().ok() } else { None };
        value = value.get_item(&index.map_or_else(|| Value::from(part), Value::from))?;
    }
    Ok(value)
}

/// What items are compared by: an attribute, without its case unless that matters.
fn key_of(
    arguments: &Arguments,
    attribute: usize,
    case_sensitive: usize,
) -> impl Fn(&Value) -> Result<Value> {
    let (path, exact) = (arguments.given(attribute).cloned(), arguments.flag(case_sensitive));
    move |item| {
        let value = at_path(item, path.as_ref())?;
        Ok(if exact { value } else { folded(&value) })
    }
}

pub(super) fn attr(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let name = arguments.text(0)?;
    if value.is_undefined() {
        return value.get_attr(name);
    }
    let is_plain = is_dict(value) || is_list(value) || value.is_tuple() || value.as_str().is_some();
    if is_plain && !methods::is_method(name) { Ok(Value::UNDEFINED) } else { methods::attribute(value, name) }
}

pub(super) fn default(_: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let is_missing = value.is_undefined() || arguments.flag(1) && !value.is_true();
    Ok(if is_missing { arguments.get(0).cloned().unwrap_or(Value::from("")) } else { value.clone() })
}

pub(super) fn length(_: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    if value.is_undefined() {
        return Ok(Value::from(0));
    }
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().count()));
    }
    value.len().map(Value::from).ok_or_else(|| type_error(format!("{} has no length", kind(value))))
}

pub(super) fn first(_: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    if value.is_none() {
        return Err(type_error("none has no items"));
    }
    Ok(value.try_iter()?.checked().next().transpose()?.unwrap_or_default())
}

pub(super) fn last(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    not_a_generator(value)?;
    Ok(items(state, value)?.pop().unwrap_or_default())
}

fn not_a_generator(value: &Value) -> Result<()> {
    match value.downcast_object_ref::<Generator>() {
        Some(_) => Err(type_error("a generator has no last item: `| list` makes it a list that has")),
        None => Ok(()),
    }
}

pub(super) fn random(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    let items = items(state, value)?;
    // Any will do, and the same one each time is kinder: a multiplicative hash of the work done so far.
    let (done, _) = state.fuel_levels().unwrap_or_default();
    let at = (done.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) as usize;
    Ok(if items.is_empty() { Value::UNDEFINED } else { items[at % items.len()].clone() })
}

pub(super) fn list(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    items(state, value).map(Value::from)
}

pub(super) fn reverse(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    if let Some(text) = value.as_str() {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut items = items(state, value)?;
    items.reverse();
    Ok(Generator::value(items))
}

pub(super) fn items_of(state: &mut State<'_, '_>, value: &Value, _: &Arguments) -> Result<Value> {
    if value.is_undefined() {
        return Ok(Generator::value(Vec::new()));
    }
    if !is_dict(value) {
        return Err(type_error("items: only a dictionary has pairs of keys and values"));
    }
    containers::pairs(state, value).map(Generator::value)
}

pub(super) fn join(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let separator =
        arguments.get(0).map_or(Ok(String::new()), |separator| python_repr::text(state, separator))?;
    let items = items(state, value)?;
    let items: Vec<_> = items.iter().map(|item| at_path(item, arguments.given(1))).collect::<Result<_>>()?;
    let escapes =
        !matches!(state.auto_escape(), minijinja::AutoEscape::None) && items.iter().any(Value::is_safe);
    let mut out = String::new();
    for (index, item) in items.iter().enumerate() {
        let text = python_repr::text(state, item)?;
        let separator = if index > 0 { &separator[..] } else { "" };
        charge(state, separator.len() + text.len())?;
        out.push_str(separator);
        out.push_str(&if escapes { html::escaped(item, &text) } else { text });
    }
    Ok(if escapes { Value::from_safe_string(out) } else { Value::from(out) })
}

/// Lists of so many items; the last may be filled up.
pub(super) fn batch(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    arguments.value(0)?;
    let size = arguments.integer(0, 0)?;
    let items = items(state, value)?;
    // As in Jinja, a size that no list has makes one of all, after an empty one for the size of zero.
    let n = usize::try_from(size).unwrap_or(0);
    let each = if n == 0 { items.len().max(1) } else { n };
    let mut batches: Vec<Vec<Value>> = items.chunks(each).map(<[_]>::to_vec).collect();
    if let (Some(last), Some(fill)) = (batches.last_mut(), arguments.given(1))
        && last.len() < n
    {
        charge(state, n.saturating_mul(size_of::<Value>()))?;
        last.resize(n, fill.clone());
    }
    if size == 0 && !items.is_empty() {
        batches.insert(0, Vec::new());
    }
    Ok(Generator::value(batches.into_iter().map(Value::from).collect()))
}

/// So many lists, the first of them longer where it does not come out even.
pub(super) fn slice(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let slices = usize::try_from(arguments.integer(0, 0)?).unwrap_or(0);
    if slices == 0 {
        return Err(type_error("slice needs a number of slices"));
    }
    charge(state, slices.saturating_mul(size_of::<Value>()))?;
    let items = items(state, value)?;
    let (each, more) = (items.len() / slices, items.len() % slices);
    let mut start = 0;
    let mut lists = Vec::new();
    for index in 0..slices {
        let end = start + each + usize::from(index < more);
        let mut list = items[start..end].to_vec();
        if let Some(fill) = arguments.given(1).filter(|_| index >= more) {
            list.push(fill.clone());
        }
        lists.push(Value::from(list));
        start = end;
    }
    Ok(Generator::value(lists))
}

pub(super) fn sum(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let mut sum = arguments.get(1).cloned().unwrap_or(Value::from(0));
    if sum.as_str().is_some() {
        return Err(type_error("sum: strings are joined, not added"));
    }
    for item in items(state, value)? {
        sum = add(state, &sum, &at_path(&item, arguments.given(0))?)?;
    }
    Ok(sum)
}

pub(super) fn min(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    extreme(state, value, arguments, std::cmp::Ordering::is_lt)
}

pub(super) fn max(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    extreme(state, value, arguments, std::cmp::Ordering::is_gt)
}

fn extreme(
    state: &State<'_, '_>,
    value: &Value,
    arguments: &Arguments,
    is_better: fn(std::cmp::Ordering) -> bool,
) -> Result<Value> {
    let key = key_of(arguments, 1, 0);
    let mut best: Option<(Value, Value)> = None;
    for item in items(state, value)? {
        let key = key(&item)?;
        let wins = match &best {
            Some((best, _)) => compare(&key, best)?.is_some_and(is_better),
            None => true,
        };
        if wins {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

/// The items in the order of what the filter compares them by.
fn in_order(
    state: &State<'_, '_>,
    items: Vec<Value>,
    key: impl Fn(&Value) -> Result<Value>,
) -> Result<Vec<Value>> {
    let keyed = items.into_iter().map(|item| Ok(Value::from(vec![key(&item)?, item])));
    let keyed = keyed.collect::<Result<Vec<_>>>()?;
    let part = |pair: &Value, at: usize| pair.get_item_by_index(at).unwrap_or_default();
    let sorted = sorted(state, keyed, |pair| part(pair, 0))?;
    Ok(sorted.iter().map(|pair| part(pair, 1)).collect())
}

pub(super) fn sort(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let (path, exact) = (arguments.given(2).cloned(), arguments.flag(1));
    let fold = |value: Value| if exact { value } else { folded(&value) };
    let key = |item: &Value| match path.as_ref().and_then(Value::as_str).filter(|path| path.contains(',')) {
        Some(paths) => {
            let parts = paths.split(',').map(|path| at_path(item, Some(&Value::from(path))).map(fold));
            parts.collect::<Result<Vec<_>>>().map(Value::from)
        }
        None => at_path(item, path.as_ref()).map(fold),
    };
    ordered(state, items(state, value)?, arguments.flag(0), key).map(Value::from)
}

/// As Python sorts: equal items keep their order, also backwards.
fn ordered(
    state: &State<'_, '_>,
    mut items: Vec<Value>,
    is_reverse: bool,
    key: impl Fn(&Value) -> Result<Value>,
) -> Result<Vec<Value>> {
    if !is_reverse {
        return in_order(state, items, key);
    }
    items.reverse();
    let mut sorted = in_order(state, items, key)?;
    sorted.reverse();
    Ok(sorted)
}

pub(super) fn dict_sort(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let at = match arguments.optional_text(1)?.unwrap_or("key") {
        "key" => 0,
        "value" => 1,
        _ => return Err(type_error("dictsort: `by` must be key or value")),
    };
    if !is_dict(value) {
        return Err(type_error("dictsort needs a dictionary"));
    }
    let exact = arguments.flag(0);
    let key = |pair: &Value| {
        let part = pair.get_item_by_index(at)?;
        Ok(if exact { part } else { folded(&part) })
    };
    ordered(state, containers::pairs(state, value)?, arguments.flag(2), key).map(Value::from)
}

pub(super) fn unique(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    let key = key_of(arguments, 1, 0);
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in items(state, value)? {
        let key = key(&item)?;
        if is_list(&key) || is_dict(&key) {
            return Err(type_error(format!("unique: {} can't be looked up", kind(&key))));
        }
        if seen.insert(key) {
            kept.push(item);
        }
    }
    Ok(Generator::value(kept))
}

pub(super) fn group_by(state: &mut State<'_, '_>, value: &Value, arguments: &Arguments) -> Result<Value> {
    arguments.value(0)?;
    let (path, fallback, exact) = (arguments.given(0), arguments.get(1), arguments.flag(2));
    let grouper = |item: &Value| {
        let value = at_path(item, path)?;
        Ok::<_, Error>(match fallback {
            Some(fallback) if value.is_undefined() => fallback.clone(),
            _ => value,
        })
    };
    let key = |item: &Value| grouper(item).map(|value| if exact { value } else { folded(&value) });
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in in_order(state, items(state, value)?, key)? {
        let of_item = key(&item)?;
        match groups.last_mut() {
            Some((of_group, group)) if *of_group == of_item => group.push(item),
            _ => groups.push((of_item, vec![item])),
        }
    }
    let groups = groups.into_iter().map(|(of_group, group)| {
        // Where case does not matter, a group is named after its first item.
        let name = if exact { of_group } else { grouper(&group[0])? };
        Ok(Group::value(name, group))
    });
    groups.collect::<Result<Vec<_>>>().map(Value::from)
}
