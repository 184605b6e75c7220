//! The functions that a chat template finds: Jinja's, and those of Hugging Face transformers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, Tuple, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::arguments::{Arguments, integer, type_error};
use super::python_repr::text;
use super::sequences::{Range, items};

type Result<T> = std::result::Result<T, Error>;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    // The one thing that `set` can change.
    environment.add_global("namespace", Value::from_function(namespace));
    environment.add_global("range", Value::from_function(range));
    environment.add_global("dict", Value::from_function(dict));
    environment.add_global("cycler", Value::from_function(cycler));
    environment.add_global("joiner", Value::from_function(joiner));
    environment.add_global("raise_exception", Value::from_function(raise_exception));
    environment.add_filter("py_collect", |called: Value, names: Vec<String>| {
        Value::from_object(Collector { called, names })
    });
}

/// The template says that it can't render the conversation. Its words are the source of the error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(state: &State<'_, '_>, message: Value) -> Result<Value> {
    let message = text(state, &message)?;
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

fn range(bounds: Rest<Value>) -> Result<Value> {
    let bounds: Option<Vec<i64>> = bounds.iter().map(integer).collect();
    let range = match bounds.as_deref() {
        Some([stop]) => Range::new(0, *stop, 1),
        Some([start, stop]) => Range::new(*start, *stop, 1),
        Some([start, stop, step]) => Range::new(*start, *stop, *step),
        _ => Err(type_error("range takes one to three integers")),
    };
    range.map(Value::from_object)
}

/// `namespace(pairs or another, **more)`. As in transformers, no name in it begins with an underscore.
fn namespace(state: &mut State<'_, '_>, given: Rest<Value>, more: Kwargs) -> Result<Value> {
    let names = dict(state, given, more)?;
    if names.try_iter()?.any(|name| name.as_str().is_some_and(|name| name.starts_with('_'))) {
        return Err(type_error("a name in a namespace can't begin with an underscore"));
    }
    Value::from_function(minijinja::functions::namespace).call(state, &[names])
}

/// `dict(pairs or another, **more)`.
fn dict(state: &State<'_, '_>, given: Rest<Value>, more: Kwargs) -> Result<Value> {
    let mut pairs = Vec::new();
    match &given[..] {
        [] => {}
        [other] if other.kind() == ValueKind::Map => {
            for key in items(state, other)? {
                pairs.push((key.clone(), other.get_item(&key)?));
            }
        }
        [list] => {
            for pair in items(state, list)? {
                let pair = <[Value; 2]>::try_from(items(state, &pair)?);
                let [key, item] = pair.map_err(|_| type_error("dict takes pairs of keys and values"))?;
                pairs.push((key, item));
            }
        }
        _ => return Err(type_error("dict takes one list of pairs, or another dictionary")),
    }
    for name in more.args() {
        pairs.push((Value::from(name), more.get(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

fn cycler(given: Rest<Value>) -> Result<Value> {
    if given.is_empty() {
        return Err(type_error("cycler needs something to go through"));
    }
    Ok(Value::from_object(Cycler { items: given.0, at: AtomicUsize::new(0) }))
}

/// Goes through values again and again.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items[self.at.load(Ordering::Relaxed) % self.items.len()].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "current" => Some(self.current()),
            "pos" => Some(Value::from(self.at.load(Ordering::Relaxed) % self.items.len())),
            "items" => Some(Value::from(Tuple::from(self.items.clone()))),
            _ => None,
        }
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, given: &[Value]) -> Result<Value> {
        let () = from_args(given)?;
        match method {
            "next" => {
                let current = self.current();
                self.at.fetch_add(1, Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn joiner(by_place: Rest<Value>, by_name: Kwargs) -> Result<Value> {
    let arguments = Arguments::bind("joiner", &["sep"], &by_place, &by_name)?;
    let separator = arguments.get(0).cloned().unwrap_or_else(|| Value::from(", "));
    Ok(Value::from_object(Joiner { separator, was_called: AtomicBool::new(false) }))
}

/// Gives a separator whenever it is called, but for the first time.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    was_called: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, given: &[Value]) -> Result<Value> {
        let () = from_args(given)?;
        let was_called = self.was_called.swap(true, Ordering::Relaxed);
        Ok(if was_called { self.separator.clone() } else { Value::from("") })
    }
}

/// A macro that asks for `varargs` and `kwargs`: what it has no parameter for is put into these two, which
/// [`super::source`] has made its last parameters.
#[derive(Debug)]
struct Collector {
    called: Value,
    names: Vec<String>,
}

impl Object for Collector {
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["name", "arguments", "catch_varargs", "catch_kwargs", "caller"])
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "arguments" => Some(self.names.iter().map(|name| Value::from(name.as_str())).collect()),
            "catch_varargs" | "catch_kwargs" => Some(Value::from(true)),
            name => self.called.get_attr(name).ok(),
        }
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, given: &[Value]) -> Result<Value> {
        let (mut by_place, by_name): (Rest<Value>, Kwargs) = from_args(given)?;
        let n_known = self.names.len().min(by_place.len());
        let more = by_place.split_off(n_known);
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for name in by_name.args() {
            let is_known = name == "caller" || self.names.iter().any(|known| known == name);
            let value: Value = by_name.get(name)?;
            if is_known { &mut known } else { &mut unknown }.push((name.to_owned(), value));
        }
        known.push(("varargs".to_owned(), Value::from(Tuple::from(more))));
        known.push(("kwargs".to_owned(), Value::from_pairs(unknown)));
        let mut arguments = by_place.0;
        arguments.push(Value::from(known.into_iter().collect::<Kwargs>()));
        self.called.call(state, &arguments)
    }
}
