//! Metadata values: thirteen types, decoded when asked for and borrowed from the file.

use std::fmt;

use crate::cursor::{Cursor, Encoding, Place};
use crate::error::{Error, Result};

/// How deep arrays may hold arrays: enough for any real file (which nest once at most), and a bound on
/// recursion. Other readers that accept nesting use the same number.
pub const MAX_ARRAY_DEPTH: usize = 64;

macro_rules! value_types {
    ($($variant:ident $id:literal $name:literal $doc:literal)*) => {
        /// The type of a metadata value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ValueType {
            $(#[doc = $doc] $variant = $id,)*
        }

        impl ValueType {
            /// Every type, in the order of ids.
            pub const ALL: &[ValueType] = &[$(ValueType::$variant),*];

            /// The type with this id, if the format defines one.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(ValueType::$variant),)* _ => None }
            }

            /// A short name, such as `u32`.
            pub const fn name(self) -> &'static str {
                match self { $(ValueType::$variant => $name,)* }
            }
        }
    };
}

value_types! {
    U8     0  "u8"     "Unsigned, 8 bits."
    I8     1  "i8"     "Signed, 8 bits."
    U16    2  "u16"    "Unsigned, 16 bits."
    I16    3  "i16"    "Signed, 16 bits."
    U32    4  "u32"    "Unsigned, 32 bits."
    I32    5  "i32"    "Signed, 32 bits."
    F32    6  "f32"    "Float, 32 bits."
    Bool   7  "bool"   "One byte; false is 0, and any other is true."
    String 8  "string" "A length and that many bytes, meant to be UTF-8."
    Array  9  "array"  "An element type, a count, and that many values."
    U64    10 "u64"    "Unsigned, 64 bits."
    I64    11 "i64"    "Signed, 64 bits."
    F64    12 "f64"    "Float, 64 bits."
}

impl ValueType {
    /// The number that stands for this type in a file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The fewest bytes that a value can take; for all but strings and arrays, what every value takes.
    pub(crate) const fn min_bytes(self, encoding: Encoding) -> u64 {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
            ValueType::U16 | ValueType::I16 => 2,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 8,
            ValueType::String => encoding.length_bytes(),
            ValueType::Array => 4 + encoding.length_bytes(),
        }
    }

    /// Whether any bytes of the right number are a value, so that an array needs no look at its elements.
    const fn is_plain(self) -> bool {
        !matches!(self, ValueType::String | ValueType::Array)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value. Strings and arrays borrow the file's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each variant holds what its name says
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// The bytes as they are in the file. They should be UTF-8, but pieces of a vocabulary may not be.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The value's type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value as a number without a width, if it is an integer.
    pub(crate) fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => {
                return None;
            }
        })
    }

    /// What the value is, for an error.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Array(array) => format!("an array of {}", array.element_type()),
            other => format!("of type {}", other.value_type()),
        }
    }

    /// Reads and checks a value whose end is not known; `depth` counts the arrays around it.
    pub(crate) fn read(cursor: &mut Cursor<'a>, key: &'a str, of: ValueType, depth: usize) -> Result<Self> {
        Ok(match of {
            ValueType::U8 => Value::U8(cursor.u8()?),
            ValueType::I8 => Value::I8(cursor.i8()?),
            ValueType::U16 => Value::U16(cursor.u16()?),
            ValueType::I16 => Value::I16(cursor.i16()?),
            ValueType::U32 => Value::U32(cursor.u32()?),
            ValueType::I32 => Value::I32(cursor.i32()?),
            ValueType::F32 => Value::F32(cursor.f32()?),
            ValueType::Bool => Value::Bool(cursor.u8()? != 0),
            ValueType::String => Value::String(cursor.string()?),
            ValueType::Array => Value::Array(Array::read(cursor, key, depth)?),
            ValueType::U64 => Value::U64(cursor.u64()?),
            ValueType::I64 => Value::I64(cursor.i64()?),
            ValueType::F64 => Value::F64(cursor.f64()?),
        })
    }

    /// Decodes a value that [`Value::read`] has accepted, without looking at the elements of an array.
    /// `bytes` are exactly the value's. `None` only if they changed since.
    pub(crate) fn decode(bytes: &'a [u8], encoding: Encoding, key: &'a str, of: ValueType) -> Option<Self> {
        let mut cursor = Cursor::new(bytes, encoding, Place::Value(key));
        if of != ValueType::Array {
            return Value::read(&mut cursor, key, of, 0).ok();
        }
        let (element_type, len) = Array::read_header(&mut cursor, key).ok()?;
        Some(Value::Array(Array { key, element_type, len, elements: cursor.rest(), encoding }))
    }
}

/// An array of values of one type, decoded element by element.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    pub(crate) key: &'a str,
    pub(crate) element_type: ValueType,
    pub(crate) len: usize,
    pub(crate) elements: &'a [u8],
    pub(crate) encoding: Encoding,
}

impl<'a> Array<'a> {
    /// The type of every element.
    pub fn element_type(&self) -> ValueType {
        self.element_type
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key that the array belongs to.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// The elements, in order.
    pub fn iter(&self) -> ArrayIter<'a> {
        let cursor = Cursor::new(self.elements, self.encoding, Place::Value(self.key));
        ArrayIter { cursor, key: self.key, element_type: self.element_type, remaining: self.len }
    }

    /// The elements of an array of strings, as bytes.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the elements are not strings.
    pub fn strings(&self) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>> {
        if self.element_type != ValueType::String {
            return Err(Error::WrongType {
                key: self.key.to_owned(),
                expected: "an array of string",
                found: Value::Array(*self).describe(),
            });
        }
        Ok(self.iter().filter_map(|value| match value {
            Value::String(bytes) => Some(bytes),
            _ => None,
        }))
    }

    /// The elements converted, as [`Metadata::required`](crate::Metadata::required) converts a value:
    /// `array.values::<f32>()`.
    pub fn values<T: crate::FromValue<'a>>(&self) -> impl Iterator<Item = Result<T>> + use<'a, T> {
        let key = self.key;
        self.iter().map(move |value| T::from_value(key, value))
    }

    fn read(cursor: &mut Cursor<'a>, key: &'a str, depth: usize) -> Result<Self> {
        if depth == MAX_ARRAY_DEPTH {
            return Err(Error::ArrayTooDeep { key: key.to_owned(), limit: MAX_ARRAY_DEPTH });
        }
        let (element_type, len) = Array::read_header(cursor, key)?;
        let mut end = *cursor;
        if element_type.is_plain() {
            // The header's check has this product below the bytes left.
            end.take(len as u64 * element_type.min_bytes(cursor.encoding))?;
        } else {
            for _ in 0..len {
                Value::read(&mut end, key, element_type, depth + 1)?;
            }
        }
        let elements = cursor.take((end.position() - cursor.position()) as u64)?;
        Ok(Array { key, element_type, len, elements, encoding: cursor.encoding })
    }

    /// Reads the element type and the count, which the bytes left must be able to hold.
    fn read_header(cursor: &mut Cursor<'a>, key: &str) -> Result<(ValueType, usize)> {
        let id = cursor.u32()?;
        let element_type =
            ValueType::from_id(id).ok_or_else(|| Error::UnknownValueType { key: key.to_owned(), id })?;
        let (len, available) = (cursor.length()?, cursor.remaining());
        let too_long = || Error::ArrayTooLong { key: key.to_owned(), len, available };
        if len > available / element_type.min_bytes(cursor.encoding) {
            return Err(too_long());
        }
        Ok((element_type, usize::try_from(len).map_err(|_| too_long())?))
    }
}

/// Same element type and equal elements, whatever the key and however they are stored.
impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.element_type == other.element_type && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = ArrayIter<'a>;

    fn into_iter(self) -> ArrayIter<'a> {
        self.iter()
    }
}

/// The elements of an [`Array`].
#[derive(Clone, Debug)]
pub struct ArrayIter<'a> {
    cursor: Cursor<'a>,
    key: &'a str,
    element_type: ValueType,
    remaining: usize,
}

impl<'a> Iterator for ArrayIter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        // Every element was read once, when the file was parsed.
        Value::read(&mut self.cursor, self.key, self.element_type, 0).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for ArrayIter<'_> {}
