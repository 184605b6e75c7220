//! The arguments of a filter, a test or a method, by place or by name.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// What was given, one for each parameter.
pub(super) struct Arguments {
    function: &'static str,
    names: &'static [&'static str],
    values: Vec<Option<Value>>,
}

impl Arguments {
    /// `names` are the parameters in their order. One whose name begins with `/` is given by place alone.
    pub(super) fn bind(
        function: &'static str,
        names: &'static [&'static str],
        by_place: &[Value],
        by_name: &Kwargs,
    ) -> Result<Self, Error> {
        if by_place.len() > names.len() {
            let n = names.len();
            return Err(Error::new(
                ErrorKind::TooManyArguments,
                format!("{function} takes at most {n} arguments"),
            ));
        }
        let mut values: Vec<_> = by_place.iter().cloned().map(Some).collect();
        values.resize(names.len(), None);
        for name in by_name.args() {
            let free = names.iter().position(|known| *known == name).filter(|&at| values[at].is_none());
            let at = free.ok_or_else(|| {
                Error::new(
                    ErrorKind::TooManyArguments,
                    format!("{function} can't take an argument {name:?} here"),
                )
            })?;
            values[at] = Some(by_name.get(name)?);
        }
        Ok(Arguments { function, names, values })
    }

    pub(super) fn get(&self, at: usize) -> Option<&Value> {
        self.values.get(at)?.as_ref()
    }

    /// One that must be given.
    pub(super) fn value(&self, at: usize) -> Result<&Value, Error> {
        self.get(at).ok_or_else(|| {
            let name = self.names[at].trim_start_matches('/');
            Error::new(ErrorKind::MissingArgument, format!("{} needs {name:?}", self.function))
        })
    }

    /// One that is not none.
    pub(super) fn given(&self, at: usize) -> Option<&Value> {
        self.get(at).filter(|value| !value.is_none())
    }

    pub(super) fn text(&self, at: usize) -> Result<&str, Error> {
        self.value(at)?.as_str().ok_or_else(|| self.wrong(at, "a string"))
    }

    /// `None` if it is none or not given.
    pub(super) fn optional_text(&self, at: usize) -> Result<Option<&str>, Error> {
        if self.given(at).is_some() { self.text(at).map(Some) } else { Ok(None) }
    }

    pub(super) fn integer(&self, at: usize, default: i64) -> Result<i64, Error> {
        match self.get(at) {
            None => Ok(default),
            Some(value) => integer(value).ok_or_else(|| self.wrong(at, "an integer")),
        }
    }

    /// Whether it is given and true.
    pub(super) fn flag(&self, at: usize) -> bool {
        self.get(at).is_some_and(Value::is_true)
    }

    fn wrong(&self, at: usize, what: &str) -> Error {
        type_error(format!("{}: {:?} must be {what}", self.function, self.names[at].trim_start_matches('/')))
    }
}

/// An integer or a boolean. One that is too large is cut.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value.kind() {
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => {
            let wide = i128::try_from(value.clone()).unwrap_or(i128::MAX);
            Some(wide.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
        }
        _ => None,
    }
}

/// What Python calls a `TypeError` or a `ValueError`.
pub(super) fn type_error(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}
