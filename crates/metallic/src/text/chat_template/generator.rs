//! Filters whose results are generators in Python: values to go through, but not lists.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Rest, ValueOrKwargs};
use minijinja::{Environment, Error, State, Value, filters};

/// What such a filter gives. Its items are computed at once, which no template can tell.
#[derive(Debug)]
pub(super) struct Generator(Vec<Value>);

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.clone())
    }
}

/// Lets the filters give generators.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    for (name, filter) in [
        ("map", Value::from_function(filters::map)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("unique", Value::from_function(filters::unique)),
    ] {
        let generate = move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
            let items = filter.call(state, &arguments.into_values())?;
            Ok::<_, Error>(Value::from_object(Generator(items.try_iter()?.collect())))
        };
        environment.add_filter(name, generate);
    }
}
