//! Metadata values to bytes, as version 3 little-endian has them.

use crate::cursor::Encoding;
use crate::error::{Error, Result};
use crate::value::{Array, Value, ValueType};

impl Value<'_> {
    /// Appends the value, without its type.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => out.extend(v.to_le_bytes()),
            Value::I8(v) => out.extend(v.to_le_bytes()),
            Value::U16(v) => out.extend(v.to_le_bytes()),
            Value::I16(v) => out.extend(v.to_le_bytes()),
            Value::U32(v) => out.extend(v.to_le_bytes()),
            Value::I32(v) => out.extend(v.to_le_bytes()),
            Value::F32(v) => out.extend(v.to_le_bytes()),
            Value::Bool(v) => out.push((*v).into()),
            Value::String(bytes) => encode_string(bytes, out),
            Value::Array(array) => array.encode(out),
            Value::U64(v) => out.extend(v.to_le_bytes()),
            Value::I64(v) => out.extend(v.to_le_bytes()),
            Value::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
}

impl Array<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.element_type.id().to_le_bytes());
        out.extend((self.len as u64).to_le_bytes());
        if self.encoding == Encoding::NEWEST {
            out.extend_from_slice(self.elements);
        } else {
            self.iter().for_each(|element| element.encode(out));
        }
    }
}

/// Appends a length and the bytes.
pub(crate) fn encode_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// An array to write, which owns its elements.
///
/// ```
/// # use metallic_gguf::{ArrayBuf, ValueType};
/// # fn main() -> metallic_gguf::Result<()> {
/// let tokens = ArrayBuf::new(ValueType::String, ["<s>", "a", "b"])?;
/// let rows = [ArrayBuf::new(ValueType::I32, [1, 2])?, ArrayBuf::new(ValueType::F32, [0.5_f32])?];
/// let nested = ArrayBuf::new(ValueType::Array, &rows)?;
/// assert_eq!(nested.as_array().len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayBuf {
    element_type: ValueType,
    len: usize,
    elements: Vec<u8>,
}

impl ArrayBuf {
    /// An array of these elements, all of one type.
    ///
    /// # Errors
    /// [`Error::MixedArray`] if an element has another type.
    pub fn new<'v, V: Into<Value<'v>>>(
        element_type: ValueType,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        let mut array = ArrayBuf { element_type, len: 0, elements: Vec::new() };
        for value in values {
            let value = value.into();
            if value.value_type() != element_type {
                let (expected, found) = (element_type.name(), value.value_type().name());
                return Err(Error::MixedArray { expected, found });
            }
            value.encode(&mut array.elements);
            array.len += 1;
        }
        Ok(array)
    }

    /// The array as a file would lend it.
    pub fn as_array(&self) -> Array<'_> {
        Array {
            key: "",
            element_type: self.element_type,
            len: self.len,
            elements: &self.elements,
            encoding: Encoding::NEWEST,
        }
    }
}

macro_rules! values_from {
    ($($variant:ident $type:ty)*) => {
        $(impl<'a> From<$type> for Value<'a> {
            fn from(value: $type) -> Self {
                Value::$variant(value)
            }
        })*
    };
}

values_from! {
    U8 u8 I8 i8 U16 u16 I16 i16 U32 u32 I32 i32 U64 u64 I64 i64 F32 f32 F64 f64 Bool bool
    String &'a [u8] Array Array<'a>
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::String(value.as_bytes())
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Value::String(value.as_bytes())
    }
}

impl<'a> From<&'a ArrayBuf> for Value<'a> {
    fn from(value: &'a ArrayBuf) -> Self {
        Value::Array(value.as_array())
    }
}
