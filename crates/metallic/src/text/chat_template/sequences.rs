//! Python's kinds of sequences that the engine lacks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, State, Value};

use super::arguments::type_error;
use super::bounds::charge;

/// What filters such as `map` give: something to go through, once. Its items are computed beforehand.
#[derive(Debug)]
pub(super) struct Generator(Mutex<VecDeque<Value>>);

impl Generator {
    pub(super) fn value(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items.into())))
    }

    /// What a filter gives that fails where somebody goes through its items, as in Python, and not before.
    pub(super) fn lazy(result: Result<Value, Error>) -> Value {
        result.unwrap_or_else(|error| Generator::value(vec![Value::from(error)]))
    }

    /// What has not been gone through.
    pub(super) fn rest(&self) -> MutexGuard<'_, VecDeque<Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = self.clone();
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.rest().pop_front())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// A dictionary's keys, values or items.
#[derive(Debug)]
pub(super) struct View {
    /// The name of the type.
    pub(super) name: &'static str,
    pub(super) items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// `range(start, stop, step)`.
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
    len: usize,
}

/// The longest range that Jinja's sandbox makes.
const MAX_RANGE: i128 = 100_000;

impl Range {
    pub(super) fn new(start: i64, stop: i64, step: i64) -> Result<Self, Error> {
        let (first, end, by) = (i128::from(start), i128::from(stop), i128::from(step));
        let len = match by {
            0 => return Err(type_error("range: the step must not be zero")),
            1.. => (end - first + by - 1) / by,
            _ => (first - end - by - 1) / -by,
        };
        if len > MAX_RANGE {
            return Err(type_error(format!("range: {len} numbers are more than {MAX_RANGE}")));
        }
        Ok(Range { start, stop, step, len: usize::try_from(len).unwrap_or(0) })
    }

    /// Every so many of its numbers, which is a range again.
    fn slice(&self, start: Option<i64>, stop: Option<i64>, step: i64) -> Result<Self, Error> {
        let (first, end) = ends(self.len, start, stop, step);
        let at = |place: i64| self.start.saturating_add(self.step.saturating_mul(place));
        Range::new(at(first), at(end), self.step.saturating_mul(step))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range({}, {}", self.start, self.stop)?;
        if self.step != 1 {
            write!(f, ", {}", self.step)?;
        }
        write!(f, ")")
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = key.as_usize().filter(|&at| at < self.len)?;
        Some(Value::from(self.start + self.step * at as i64))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len)
    }
}

/// What items have in common, and the items: a tuple whose parts also have names.
#[derive(Debug)]
pub(super) struct Group([Value; 2]);

impl Group {
    pub(super) fn value(grouper: Value, items: Vec<Value>) -> Value {
        Value::from_object(Group([grouper, Value::from(items)]))
    }

    pub(super) fn as_tuple(&self) -> Value {
        Value::from(Tuple::from(self.0.to_vec()))
    }
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some("grouper") => Some(self.0[0].clone()),
            Some("list") => Some(self.0[1].clone()),
            _ => self.0.get(key.as_usize()?).cloned(),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// Whether a value is a list of Python's.
pub(super) fn is_list(value: &Value) -> bool {
    let is_other =
        value.downcast_object_ref::<Range>().is_some() || value.downcast_object_ref::<Group>().is_some();
    value.kind() == ValueKind::Seq && !value.is_tuple() && !is_other
}

/// Whether a value is a dictionary, not something else with attributes.
pub(super) fn is_dict(value: &Value) -> bool {
    let is_other =
        |name: &str| ["Namespace", "Loop", "Macro", "Module"].iter().any(|end| name.ends_with(end));
    value.kind() == ValueKind::Map && value.as_object().is_some_and(|object| !is_other(object.type_name()))
}

/// The items that Python goes through.
pub(super) fn items(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_none() {
        return Err(type_error("none has no items"));
    }
    let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
    charge(state, items.len())?;
    Ok(items)
}

/// What a loop goes through. It wants to know how many items there are. None has none, other than in Python: so
/// templates that go through the tools without asking for them also serve conversations that have none.
pub(super) fn iterable(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if value.downcast_object_ref::<Generator>().is_some() {
        return items(state, &value).map(Value::from);
    }
    Ok(value)
}

/// What several names are given: of a string, its characters.
pub(super) fn unpacked(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return Ok(value) };
    charge(state, text.len())?;
    Ok(text.chars().map(Value::from).collect())
}

/// `value[start:stop:step]`.
pub(super) fn slice(state: &State<'_, '_>, value: &Value, bounds: [Option<i64>; 3]) -> Result<Value, Error> {
    let [start, stop, step] = bounds;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(type_error("the step of a slice must not be zero"));
    }
    if let Some(text) = value.as_str() {
        let chars: Vec<_> = text.chars().collect();
        let taken = places(chars.len(), start, stop, step).map(|at| chars[at]);
        let text = taken.collect::<String>();
        return Ok(if value.is_safe() { Value::from_safe_string(text) } else { Value::from(text) });
    }
    if let Some(range) = value.downcast_object_ref::<Range>() {
        return Ok(Value::from_object(range.slice(start, stop, step)?));
    }
    if value.kind() != ValueKind::Seq {
        return Err(type_error("only strings, lists, tuples and ranges have slices"));
    }
    let items = items(state, value)?;
    let taken: Vec<_> = places(items.len(), start, stop, step).map(|at| items[at].clone()).collect();
    Ok(if value.is_tuple() { Value::from(Tuple::from(taken)) } else { Value::from(taken) })
}

/// The places of a slice.
fn places(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl Iterator<Item = usize> {
    let (first, end) = ends(len, start, stop, step);
    std::iter::successors(Some(first), move |at| at.checked_add(step))
        .take_while(move |&at| if step > 0 { at < end } else { at > end })
        .map(|at| at as usize)
}

/// Where a slice begins, and the place that it does not reach.
fn ends(len: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> (i64, i64) {
    let len = len as i64;
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |bound: Option<i64>, default| {
        bound.map_or(default, |at| if at < 0 { at.saturating_add(len) } else { at }.clamp(low, high))
    };
    let (first, end) = (if step > 0 { low } else { high }, if step > 0 { high } else { low });
    (place(start, first), place(stop, end))
}
