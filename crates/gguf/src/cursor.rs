//! The only place that reads bytes: every read is checked against what is left, every number is
//! converted with a check, and an error says what was being read.

use std::fmt;

use crate::error::{Error, Result};

/// The order of the bytes of every number in a file: header, metadata and tensor data alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first; nearly every file.
    Little,
    /// Most significant byte first.
    Big,
}

impl fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ByteOrder::Little => "little-endian",
            ByteOrder::Big => "big-endian",
        })
    }
}

/// How numbers are stored in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    pub(crate) byte_order: ByteOrder,
    /// Counts, lengths and dimensions take 8 bytes; 4 in version 1.
    pub(crate) wide: bool,
}

impl Encoding {
    /// Of little-endian versions 2 and 3.
    pub(crate) const NEWEST: Encoding = Encoding { byte_order: ByteOrder::Little, wide: true };

    /// Bytes of a count, a length or a dimension.
    pub(crate) const fn length_bytes(self) -> u64 {
        if self.wide { 8 } else { 4 }
    }
}

/// What the cursor is in the middle of, for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Header,
    Key(u64),
    Value(&'a str),
    TensorInfo(u64),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => f.write_str("the header"),
            Place::Key(index) => write!(f, "metadata key number {index}"),
            Place::Value(key) => write!(f, "the value of key {key:?}"),
            Place::TensorInfo(index) => write!(f, "the description of tensor number {index}"),
        }
    }
}

/// A position in bytes that came from a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    pub(crate) encoding: Encoding,
    pub(crate) place: Place<'a>,
}

macro_rules! numbers {
    ($($name:ident: $type:ty)*) => {
        $(pub(crate) fn $name(&mut self) -> Result<$type> {
            let bytes = self.array()?;
            Ok(match self.encoding.byte_order {
                ByteOrder::Little => <$type>::from_le_bytes(bytes),
                ByteOrder::Big => <$type>::from_be_bytes(bytes),
            })
        })*
    };
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], encoding: Encoding, place: Place<'a>) -> Self {
        Cursor { bytes, position: 0, encoding, place }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The bytes not yet read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.rest().len() as u64
    }

    pub(crate) fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let rest = self.rest();
        let taken = usize::try_from(n).ok().and_then(|n| rest.get(..n)).ok_or_else(|| self.truncated(n))?;
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = *self.rest().first_chunk().ok_or_else(|| self.truncated(N as u64))?;
        self.position += N;
        Ok(bytes)
    }

    numbers! { u8: u8 i8: i8 u16: u16 i16: i16 u32: u32 i32: i32 u64: u64 i64: i64 f32: f32 f64: f64 }

    /// A count, a length or a dimension, whose width depends on the version.
    pub(crate) fn length(&mut self) -> Result<u64> {
        if self.encoding.wide { self.u64() } else { self.u32().map(u64::from) }
    }

    /// A length and that many bytes.
    pub(crate) fn string(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn truncated(&self, needed: u64) -> Error {
        Error::Truncated {
            reading: self.place.to_string(),
            offset: self.position as u64,
            needed,
            available: self.remaining(),
        }
    }
}
