//! The form for people: aligned tables, long values abbreviated.

use std::collections::BTreeMap;
use std::io::{self, Write};

use metallic::GgufFile;
use metallic_gguf::{GgmlType, Gguf, Value};

use crate::failure::one_line;
use crate::table::{Align, Table};
use crate::terminal::{Style, Terminal, human_bytes};

/// Characters of a value that are shown.
const MAX_VALUE_CHARS: usize = 60;

/// Writes everything, from general to particular.
pub(super) fn write(out: &mut impl Write, file: &GgufFile, terminal: &Terminal) -> io::Result<()> {
    let gguf = file.gguf();
    let n_elements: u64 = gguf.tensors().map(|tensor| tensor.n_elements()).fold(0, u64::saturating_add);
    let plural = if gguf.n_shards() == 1 { "file" } else { "files" };
    writeln!(out, "file      {}", one_line(&file.path().display().to_string()))?;
    writeln!(
        out,
        "format    GGUF {}, {}, aligned to {} bytes",
        gguf.version(),
        gguf.byte_order(),
        gguf.alignment()
    )?;
    writeln!(
        out,
        "size      {} ({} bytes in {} {plural})",
        human_bytes(file.n_bytes()),
        file.n_bytes(),
        gguf.n_shards()
    )?;
    writeln!(
        out,
        "holds     {} metadata keys, {} tensors of {n_elements} elements",
        gguf.metadata().len(),
        gguf.tensors().len()
    )?;
    let heading = |line: &str| terminal.paint(Style::Bold, line);
    writeln!(out)?;
    metadata(&gguf).write(out, heading)?;
    writeln!(out)?;
    tensors(&gguf, file.n_bytes()).write(out, heading)?;
    writeln!(out)?;
    types(&gguf, file.n_bytes()).write(out, heading)
}

/// Writes that the model runs, the tensors that no code uses, and the keys that none reads.
pub(super) fn write_check(
    out: &mut impl Write,
    file: &GgufFile,
    unused: &[String],
    unread: &[String],
) -> io::Result<()> {
    let n_tensors = file.gguf().tensors().len();
    if unused.is_empty() {
        writeln!(out, "this model runs, and each of its {n_tensors} tensors is used")?;
    } else {
        writeln!(out, "this model runs; of its {n_tensors} tensors, no code uses {}:", unused.len())?;
        unused.iter().try_for_each(|name| writeln!(out, "  {}", one_line(name)))?;
    }
    if unread.is_empty() {
        return Ok(());
    }
    writeln!(out, "of its keys, no code reads {} that may change what it computes:", unread.len())?;
    unread.iter().try_for_each(|key| writeln!(out, "  {}", one_line(key)))
}

fn metadata(gguf: &Gguf<'_>) -> Table<3> {
    let mut table = Table::new([("KEY", Align::Left), ("TYPE", Align::Left), ("VALUE", Align::Left)]);
    for (key, value) in gguf.metadata().iter() {
        let value_type = match value {
            Value::Array(array) => format!("{}[{}]", array.element_type(), array.len()),
            _ => value.value_type().to_string(),
        };
        table.push([one_line(key), value_type, abbreviated(&value)]);
    }
    table
}

fn tensors(gguf: &Gguf<'_>, file_bytes: u64) -> Table<5> {
    let mut table = Table::new([
        ("TENSOR", Align::Left),
        ("TYPE", Align::Left),
        ("SHAPE", Align::Left),
        ("BYTES", Align::Right),
        ("SHARE", Align::Right),
    ]);
    for tensor in gguf.tensors() {
        let shape: Vec<String> = tensor.shape().iter().map(u64::to_string).collect();
        let shape = if shape.is_empty() { "scalar".to_owned() } else { shape.join(" x ") };
        let n_bytes = tensor.n_bytes();
        let share = share(n_bytes, file_bytes);
        table.push([
            one_line(tensor.name()),
            tensor.ggml_type().to_string(),
            shape,
            n_bytes.to_string(),
            share,
        ]);
    }
    table
}

/// One row a type, the type with most bytes first.
fn types(gguf: &Gguf<'_>, file_bytes: u64) -> Table<5> {
    let mut sums: BTreeMap<GgmlType, (u64, u64, u64)> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let (n_tensors, n_elements, n_bytes) = sums.entry(tensor.ggml_type()).or_default();
        *n_tensors += 1;
        *n_elements = n_elements.saturating_add(tensor.n_elements());
        *n_bytes = n_bytes.saturating_add(tensor.n_bytes());
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (_, _, n_bytes))| std::cmp::Reverse(*n_bytes));
    let mut table = Table::new([
        ("TYPE", Align::Left),
        ("TENSORS", Align::Right),
        ("ELEMENTS", Align::Right),
        ("BYTES", Align::Right),
        ("SHARE", Align::Right),
    ]);
    for (ggml_type, (n_tensors, n_elements, n_bytes)) in sums {
        let counts = [n_tensors, n_elements, n_bytes].map(|n| n.to_string());
        let [n_tensors, n_elements, n_bytes_text] = counts;
        table.push([ggml_type.to_string(), n_tensors, n_elements, n_bytes_text, share(n_bytes, file_bytes)]);
    }
    table
}

fn share(n_bytes: u64, of: u64) -> String {
    if of == 0 { "-".to_owned() } else { format!("{:.2}%", n_bytes as f64 * 100.0 / of as f64) }
}

/// The value in at most about [`MAX_VALUE_CHARS`], on one line.
fn abbreviated(value: &Value<'_>) -> String {
    match value {
        Value::Array(array) => {
            let mut text = String::from("[");
            for (i, element) in array.iter().enumerate() {
                if text.chars().count() >= MAX_VALUE_CHARS {
                    text.push_str(", …");
                    break;
                }
                if i > 0 {
                    text.push_str(", ");
                }
                text.push_str(&abbreviated(&element));
            }
            text + "]"
        }
        Value::String(bytes) => abbreviated_string(bytes),
        Value::Bool(v) => v.to_string(),
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
    }
}

/// The string in quotes with escapes, so that no byte of it is lost or obeyed.
fn abbreviated_string(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        let shown = &bytes[..bytes.len().min(MAX_VALUE_CHARS)];
        let rest = if shown.len() < bytes.len() { "…" } else { "" };
        return format!("b\"{}{rest}\"", shown.escape_ascii());
    };
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], bytes.len()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_and_cut() {
        assert_eq!(abbreviated_string(b"llama"), "\"llama\"");
        assert_eq!(abbreviated_string(b"a\n\x1b\"b"), "\"a\\n\\u{1b}\\\"b\"");
        assert_eq!(abbreviated_string(b"\xff\x00"), "b\"\\xff\\x00\"");
        let long = "é".repeat(MAX_VALUE_CHARS + 1);
        assert_eq!(abbreviated_string(long.as_bytes()), format!("\"{}\"… (122 bytes)", "é".repeat(60)));
    }

    #[test]
    fn a_share_of_nothing_is_no_number() {
        assert_eq!(share(1, 0), "-");
        assert_eq!(share(1, 3), "33.33%");
    }
}
