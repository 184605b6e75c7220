//! The machine-readable form. Nothing is abbreviated; strings that are not UTF-8 become
//! `{"hex": "…"}`, and floats that JSON can't express become `null`.

use std::io::{self, Write};
use std::path::Path;

use metallic::GgufFile;
use metallic_gguf::{Gguf, Metadata, Tensor, Value};
use serde::{Serialize, Serializer};

/// Writes one JSON object and a line feed.
pub(super) fn write(out: &mut impl Write, file: &GgufFile) -> io::Result<()> {
    let gguf = file.gguf();
    let document = Document {
        path: file.path(),
        n_bytes: file.n_bytes(),
        version: gguf.version(),
        byte_order: gguf.byte_order().to_string(),
        alignment: gguf.alignment(),
        n_shards: gguf.n_shards(),
        metadata: Entries(gguf.metadata()),
        tensors: Tensors(&gguf),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Document<'a> {
    path: &'a Path,
    n_bytes: u64,
    version: u32,
    byte_order: String,
    alignment: u64,
    n_shards: usize,
    metadata: Entries<'a>,
    tensors: Tensors<'a>,
}

struct Entries<'a>(Metadata<'a>);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, Entry::new(value))))
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    element_type: Option<&'static str>,
    value: Plain<'a>,
}

impl<'a> Entry<'a> {
    fn new(value: Value<'a>) -> Self {
        let element_type = match value {
            Value::Array(array) => Some(array.element_type().name()),
            _ => None,
        };
        Entry { r#type: value.value_type().name(), element_type, value: Plain(value) }
    }
}

/// A value without its type.
struct Plain<'a>(Value<'a>);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::U8(v) => serializer.serialize_u8(v),
            Value::I8(v) => serializer.serialize_i8(v),
            Value::U16(v) => serializer.serialize_u16(v),
            Value::I16(v) => serializer.serialize_i16(v),
            Value::U32(v) => serializer.serialize_u32(v),
            Value::I32(v) => serializer.serialize_i32(v),
            Value::F32(v) => serializer.serialize_f32(v),
            Value::Bool(v) => serializer.serialize_bool(v),
            Value::U64(v) => serializer.serialize_u64(v),
            Value::I64(v) => serializer.serialize_i64(v),
            Value::F64(v) => serializer.serialize_f64(v),
            Value::Array(array) => serializer.collect_seq(array.iter().map(Plain)),
            Value::String(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serializer.collect_map([("hex", hex(bytes))]),
            },
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Tensors<'a>(&'a Gguf<'a>);

impl Serialize for Tensors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.tensors().map(|tensor| Row::new(&tensor)))
    }
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    r#type: &'static str,
    shape: Vec<u64>,
    n_bytes: u64,
    shard: usize,
    offset: u64,
}

impl<'a> Row<'a> {
    fn new(tensor: &Tensor<'a>) -> Self {
        Row {
            name: tensor.name(),
            r#type: tensor.ggml_type().name(),
            shape: tensor.shape().to_vec(),
            n_bytes: tensor.n_bytes(),
            shard: tensor.shard(),
            offset: tensor.file_offset(),
        }
    }
}
