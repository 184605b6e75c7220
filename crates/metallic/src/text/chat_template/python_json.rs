//! JSON as Python's `json.dumps` writes it, with a limit.

use std::io::{Error, Result, Write};

use serde_json::ser::Formatter;

/// How to write: what Hugging Face's `tojson` takes from a template.
pub(super) struct Style {
    /// Spaces for each level, on lines of their own; one line without.
    pub(super) indent: Option<usize>,
    /// Between items, and between a key and its value.
    pub(super) separators: (String, String),
    /// Whether characters outside ASCII are written as numbers.
    pub(super) ensure_ascii: bool,
}

/// A writer into memory that fails at a limit.
pub(super) struct Limited {
    pub(super) bytes: Vec<u8>,
    pub(super) limit: usize,
}

impl Write for Limited {
    fn write(&mut self, more: &[u8]) -> Result<usize> {
        if more.len() > self.limit - self.bytes.len() {
            return Err(Error::other("the JSON is too long"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Writes items and keys in a [`Style`].
pub(super) struct PythonFormatter<'s> {
    style: &'s Style,
    depth: usize,
    has_items: bool,
}

impl<'s> PythonFormatter<'s> {
    pub(super) fn new(style: &'s Style) -> Self {
        PythonFormatter { style, depth: 0, has_items: false }
    }

    fn begin<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> Result<()> {
        self.depth += 1;
        self.has_items = false;
        writer.write_all(bracket)
    }

    fn end<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> Result<()> {
        self.depth -= 1;
        if self.has_items {
            self.new_line(writer)?;
        }
        self.has_items = true;
        writer.write_all(bracket)
    }

    fn begin_item<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if !first {
            writer.write_all(self.style.separators.0.as_bytes())?;
        }
        self.new_line(writer)
    }

    fn new_line<W: Write + ?Sized>(&self, writer: &mut W) -> Result<()> {
        let Some(indent) = self.style.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..self.depth * indent).try_for_each(|_| writer.write_all(b" "))
    }
}

impl Formatter for PythonFormatter<'_> {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.begin_item(writer, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _: &mut W) -> Result<()> {
        self.has_items = true;
        Ok(())
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.begin_item(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        writer.write_all(self.style.separators.1.as_bytes())
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> Result<()> {
        self.has_items = true;
        Ok(())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> Result<()> {
        if !self.style.ensure_ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
