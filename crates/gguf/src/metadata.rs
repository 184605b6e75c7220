//! Metadata by key, with getters that convert and check.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::value::{Array, Value};

/// The most layers that [`Metadata::per_layer`] makes values for. The number of layers comes from the file,
/// and a single value repeated for each must not become gigabytes; the deepest published models have
/// hundreds.
pub const MAX_LAYERS: usize = 65_536;

/// A file's metadata: unique keys with values, in the file's order.
#[derive(Clone)]
pub struct Metadata<'a> {
    pub(crate) index: Arc<Index>,
    /// The first file, which holds the metadata of a split model.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.index.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.index.entries.is_empty()
    }

    /// Every key and value, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'_, 'a> {
        self.index.entries.iter().filter_map(|entry| Some((entry.key(self.bytes), entry.value(self.bytes)?)))
    }

    /// The value of a key, as it is in the file.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.index.entry(key)?.value(self.bytes)
    }

    /// The value of a key that must be there.
    ///
    /// ```
    /// # fn f(metadata: metallic_gguf::Metadata<'_>) -> metallic_gguf::Result<()> {
    /// let name: &str = metadata.required("general.architecture")?;
    /// let n_layers: usize = metadata.required("llama.block_count")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::MissingKey`]; and what [`FromValue`] says of a value of the wrong type or out of range.
    pub fn required<T: FromValue<'a>>(&self, key: &str) -> Result<T> {
        self.optional(key)?.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
    }

    /// The value of a key that may be absent.
    ///
    /// # Errors
    /// What [`FromValue`] says of a value that is there, but of the wrong type or out of range.
    pub fn optional<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        self.get(key).map(|value| T::from_value(key, value)).transpose()
    }

    /// The value of a key for each layer: one value that holds for all, or an array of one for each.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if an array has not `n_layers` elements, [`Error::TooManyLayers`] above
    /// [`MAX_LAYERS`], and what [`FromValue`] says of the values.
    pub fn per_layer<T: FromValue<'a> + Clone>(&self, key: &str, n_layers: usize) -> Result<Option<Vec<T>>> {
        if n_layers > MAX_LAYERS {
            let (n_layers, limit) = (n_layers as u64, MAX_LAYERS as u64);
            return Err(Error::TooManyLayers { key: key.to_owned(), n_layers, limit });
        }
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.len() == n_layers => {
                array.values().collect::<Result<_>>().map(Some)
            }
            Some(Value::Array(array)) => Err(Error::WrongLength {
                key: key.to_owned(),
                expected: n_layers as u64,
                found: array.len() as u64,
            }),
            Some(value) => Ok(Some(vec![T::from_value(key, value)?; n_layers])),
        }
    }
}

impl fmt::Debug for Metadata<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A Rust type that a metadata value can be read as.
///
/// Integers convert between widths and signs if the value fits, since writers differ in the widths they
/// choose. Floats convert between `f32` and `f64`. Nothing else converts: a number is not a string, a
/// float is not an integer. `&[u8]` is a string's bytes as they are; `&str` is a string that must be UTF-8.
pub trait FromValue<'a>: Sized {
    /// Converts a value; `key` is for the error.
    ///
    /// # Errors
    /// [`Error::WrongType`], [`Error::OutOfRange`] or [`Error::ValueNotUtf8`].
    fn from_value(key: &str, value: Value<'a>) -> Result<Self>;
}

fn wrong_type<T>(key: &str, expected: &'static str, value: &Value<'_>) -> Result<T> {
    Err(Error::WrongType { key: key.to_owned(), expected, found: value.describe() })
}

macro_rules! integers {
    ($($type:ident)*) => {
        $(impl<'a> FromValue<'a> for $type {
            fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
                let Some(integer) = value.integer() else { return wrong_type(key, "an integer", &value) };
                $type::try_from(integer).map_err(|_| Error::OutOfRange {
                    key: key.to_owned(),
                    value: integer.to_string(),
                    target: stringify!($type),
                })
            }
        })*
    };
}

integers! { u8 i8 u16 i16 u32 i32 u64 i64 usize }

impl<'a> FromValue<'a> for f32 {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        let wide = match value {
            Value::F32(v) => return Ok(v),
            Value::F64(v) => v,
            _ => return wrong_type(key, "a float", &value),
        };
        let narrow = wide as f32; // rounds; the check below is of the range
        if wide.is_finite() && narrow.is_infinite() {
            return Err(Error::OutOfRange { key: key.to_owned(), value: wide.to_string(), target: "f32" });
        }
        Ok(narrow)
    }
}

impl<'a> FromValue<'a> for f64 {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        match value {
            Value::F32(v) => Ok(v.into()),
            Value::F64(v) => Ok(v),
            _ => wrong_type(key, "a float", &value),
        }
    }
}

impl<'a> FromValue<'a> for bool {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        match value {
            Value::Bool(v) => Ok(v),
            _ => wrong_type(key, "a bool", &value),
        }
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        match value {
            Value::String(bytes) => Ok(bytes),
            _ => wrong_type(key, "a string", &value),
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        std::str::from_utf8(FromValue::from_value(key, value)?)
            .map_err(|e| Error::ValueNotUtf8 { key: key.to_owned(), at: e.valid_up_to() as u64 })
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        match value {
            Value::Array(array) => Ok(array),
            _ => wrong_type(key, "an array", &value),
        }
    }
}

impl<'a> FromValue<'a> for Value<'a> {
    fn from_value(_: &str, value: Value<'a>) -> Result<Self> {
        Ok(value)
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Vec<T> {
    fn from_value(key: &str, value: Value<'a>) -> Result<Self> {
        Array::from_value(key, value)?.iter().map(|element| T::from_value(key, element)).collect()
    }
}
