//! Reading a JSON object field by field, so that an error names the field that it is about, and none is left out without a word.

use axum::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::body;
use crate::error::{Error, Result};

/// Texts that stop an answer, and bytes of one, at most.
const MAX_TEXTS: usize = 64;
const MAX_TEXT_BYTES: usize = 4096;

/// The fields of an object that nothing has read yet.
pub(crate) struct Fields {
    /// What the object is called, in front of its fields' names; empty for a body.
    path: String,
    left: Map<String, Value>,
}

impl Fields {
    /// Of a request's body.
    pub(crate) async fn of_body(body: Bytes) -> Result<Self> {
        match body::json(body).await? {
            Value::Object(left) => Ok(Self { path: String::new(), left }),
            _ => Err(Error::Body { reason: "the body must be a JSON object".to_owned() }),
        }
    }

    /// Of a value inside a body.
    pub(crate) fn of(path: impl Into<String>, value: Value) -> Result<Self> {
        let path = path.into();
        match value {
            Value::Object(left) => Ok(Self { path, left }),
            _ => Err(Error::field(path, "it must be an object")),
        }
    }

    /// The name of a field, with those of the objects that it is in.
    pub(crate) fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// A field, where it is there and not null.
    pub(crate) fn value(&mut self, field: &str) -> Option<Value> {
        self.left.remove(field).filter(|value| !value.is_null())
    }

    /// A field that stays to be read.
    pub(crate) fn given(&self, field: &str) -> Option<&Value> {
        self.left.get(field)
    }

    /// The same as a type that it must be.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>> {
        let value = self.value(field).map(serde_json::from_value).transpose();
        value.map_err(|error| Error::field(self.name(field), error.to_string()))
    }

    /// A field that must be there.
    pub(crate) fn required<T: DeserializeOwned>(&mut self, field: &str) -> Result<T> {
        self.take(field)?.ok_or_else(|| Error::field(self.name(field), "it is missing"))
    }

    /// A whole number, which some clients write with a fraction of zero.
    pub(crate) fn whole(&mut self, field: &str) -> Result<Option<i64>> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let float = value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 9e15).map(|x| x as i64);
        let whole = value.as_i64().or(float);
        whole.map(Some).ok_or_else(|| Error::field(self.name(field), "it must be a whole number"))
    }

    /// A count, of which less than nothing stands for no bound.
    pub(crate) fn count(&mut self, field: &str) -> Result<Option<usize>> {
        Ok(self.whole(field)?.and_then(|n| usize::try_from(n).ok()))
    }

    /// Takes fields that say what holds anyway.
    pub(crate) fn pass_defaults(&mut self, defaults: &[(&str, Value)]) {
        for (field, default) in defaults {
            let is_same = |value: &Value| match (value.as_f64(), default.as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => value == default,
            };
            if self.left.get(*field).is_some_and(is_same) {
                self.left.remove(*field);
            }
        }
    }

    /// A number that must be in a range.
    pub(crate) fn number(&mut self, field: &str, least: f32, most: f32) -> Result<Option<f32>> {
        let number = self.take::<f32>(field)?;
        match number {
            Some(number) if !(least..=most).contains(&number) => {
                Err(Error::field(self.name(field), format!("it must be from {least} to {most}")))
            }
            number => Ok(number),
        }
    }

    /// An object.
    pub(crate) fn object(&mut self, field: &str) -> Result<Option<Fields>> {
        let name = self.name(field);
        self.value(field).map(|value| Fields::of(name, value)).transpose()
    }

    /// A text, or several: those that stop an answer, which are looked for with each token.
    pub(crate) fn texts(&mut self, field: &str) -> Result<Vec<String>> {
        let name = self.name(field);
        let wrong = || Error::field(&name, "it must be a string or an array of strings");
        let texts = match self.left.remove(field) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(texts)) => {
                let text = |value| if let Value::String(text) = value { Ok(text) } else { Err(wrong()) };
                texts.into_iter().map(text).collect::<Result<_>>()?
            }
            Some(_) => return Err(wrong()),
        };
        if texts.len() > MAX_TEXTS || texts.iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            let reason = format!("there may be {MAX_TEXTS} texts of {MAX_TEXT_BYTES} bytes");
            return Err(Error::field(&name, reason));
        }
        Ok(texts)
    }

    /// Refuses what nothing has read, but for fields that change no answer.
    pub(crate) fn refuse_rest(mut self, harmless: &[&str]) -> Result<()> {
        harmless.iter().for_each(|field| drop(self.left.remove(*field)));
        match self.left.iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((field, _)) => {
                Err(Error::field(self.name(field), "it is not supported, and would change the answer"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        Fields::of("", value).unwrap()
    }

    #[test]
    fn errors_name_the_field_with_those_it_is_in() {
        let mut body = fields(json!({"a": {"n": 3.5, "s": "x", "none": null}, "t": ["x", 1], "f": 9}));
        let mut a = body.object("a").unwrap().unwrap();
        let error = a.take::<u32>("n").unwrap_err().to_string();
        assert!(error.starts_with("a.n: "), "{error}");
        assert_eq!(a.required::<u32>("s").unwrap_err().param(), Some("a.s"));
        assert_eq!(a.required::<u32>("none").unwrap_err().to_string(), "a.none: it is missing");
        assert_eq!(body.texts("t").unwrap_err().param(), Some("t"));
        let mut many = fields(json!({"many": vec!["a"; 65], "long": "a".repeat(4097), "some": ["a", "b"]}));
        assert_eq!(many.texts("many").unwrap_err().param(), Some("many"));
        assert_eq!(many.texts("long").unwrap_err().param(), Some("long"));
        assert_eq!(many.texts("some").unwrap(), ["a", "b"]);
        assert!(body.number("f", 0.0, 2.0).unwrap_err().to_string().contains("from 0 to 2"));
    }

    #[tokio::test]
    async fn what_is_left_is_refused_unless_it_is_harmless_or_null() {
        assert!(fields(json!({"user": "me", "nothing": null})).refuse_rest(&["user"]).is_ok());
        let error = fields(json!({"user": "me", "magic": 1})).refuse_rest(&["user"]).unwrap_err();
        assert_eq!(error.param(), Some("magic"));
        for body in [&b"[]"[..], b"{", b"\xff", b""] {
            assert!(
                matches!(Fields::of_body(Bytes::from_static(body)).await, Err(Error::Body { .. })),
                "{body:?}"
            );
        }
    }
}
