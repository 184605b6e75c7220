//! `metallic align`: the same model with its tensors at multiples of a larger number.
//!
//! Each file is written under a temporary name beside its place and read again in full. Only when all are there
//! and right do they get their names.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use metallic::GgufFile;
use metallic_gguf::{ALIGNMENT_KEY, ByteOrder, GgufWriter, Metadata, Tensor, Value, split};

use crate::args::AlignArgs;
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::interrupt::Interrupt;
use crate::model_file;
use crate::output_file::{OutputFile, Target};

/// Bytes read and written at a time.
const PIECE_BYTES: usize = 4 << 20;

/// Writes the model anew, all its shards if it has several.
pub(crate) fn run(args: &AlignArgs, fetcher: &Fetcher<'_>) -> Result<()> {
    let path = fetcher.locate(&args.model)?.path;
    let model = model_file::open(&path)?;
    if model.gguf().byte_order() == ByteOrder::Big {
        return Err(Failure::new(Kind::BadModel, format!("can't align {}", path.display()))
            .because("it is big-endian, and only little-endian files are written"));
    }
    let inputs: Vec<&Path> = model.shard_paths().collect();
    let outputs = output_paths(&args.out, &inputs)?;
    let outputs = outputs.iter().map(|output| Target::check(output, &inputs, args.force));
    let outputs: Vec<Target> = outputs.collect::<Result<_>>()?;
    let written = write_all(&model, &inputs, outputs, args.alignment, fetcher);
    // Whatever came of it: copies of a file that changes are of no use, and that explains any failure.
    model.check_unchanged().map_err(|e| model_file::unusable(&path, e))?;
    let written = written?;

    let alignment = args.alignment;
    let notes = written.iter().map(|output| output.path().display());
    let notes = notes.map(|output| format!("{output}: aligned to {alignment} bytes, and checked"));
    let notes: Vec<String> = notes.collect();
    OutputFile::finish_all(written)?;
    notes.iter().for_each(|note| fetcher.terminal.note(note));
    Ok(())
}

/// Writes the files of a model, and makes sure that they read back as the same.
fn write_all<'a>(
    model: &GgufFile,
    inputs: &[&Path],
    outputs: Vec<Target>,
    alignment: u64,
    fetcher: &Fetcher<'a>,
) -> Result<Vec<OutputFile<'a>>> {
    let start =
        |label| Work { bar: fetcher.terminal.byte_bar(label, model.n_bytes()), interrupt: fetcher.interrupt };
    let work = start("writing");
    let mut written = Vec::new();
    for (input, output) in inputs.iter().zip(outputs) {
        written.push(work.write(&Shard::open(input)?, output, alignment)?);
    }
    work.bar.finish_and_clear();

    let work = start("checking");
    for (input, output) in inputs.iter().zip(&written) {
        if !work.is_same(&Shard::open(input)?, &Shard::written(output)?)? {
            let what = "it reads back as something else: the disk or the memory is at fault";
            return Err(output.failure(io::Error::other(what)));
        }
    }
    work.bar.finish_and_clear();
    Ok(written)
}

/// Where each shard goes: a single file to `out`, the shards of a split model to names made of it.
fn output_paths(out: &Path, inputs: &[&Path]) -> Result<Vec<PathBuf>> {
    let wrong =
        |what: &str| Failure::new(Kind::Usage, format!("can't write {}", out.display())).because(what);
    let name = out.file_name().and_then(|name| name.to_str());
    let to = name.and_then(split::parse_shard_name);
    let prefix = match to {
        None if inputs.len() == 1 => return Ok(vec![out.to_owned()]),
        None => {
            let name = name.ok_or_else(|| wrong("it is not the name of a file"))?;
            name.strip_suffix(".gguf").unwrap_or(name)
        }
        Some(to) if usize::from(to.count) == inputs.len() => to.prefix,
        Some(_) => return Err(wrong("it is the name of a shard, and the model is not in as many")),
    };
    let n_shards = inputs.len() as u16; // as many as a shard's name can count
    Ok((0..n_shards).map(|no| out.with_file_name(split::shard_name(prefix, no, n_shards))).collect())
}

/// A file whose directory was read through a map; the tensors are read a piece at a time, so that they take no
/// memory.
struct Shard {
    parsed: GgufFile,
    file: File,
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        let parsed = model_file::open_alone(path)?;
        let file = File::open(path).map_err(|e| Failure::io(format!("can't read {}", path.display()), e))?;
        Ok(Self { parsed, file })
    }

    /// What was written, by the handle that has locked it.
    fn written(output: &OutputFile<'_>) -> Result<Self> {
        let parsed = model_file::open_alone(output.temporary_path())?;
        let file = output.file().try_clone().map_err(|e| output.failure(e))?;
        Ok(Self { parsed, file })
    }

    /// Reads a part of a tensor that begins at `at`.
    fn read(&self, tensor: &Tensor<'_>, at: u64, piece: &mut [u8]) -> Result<()> {
        let mut file = &self.file;
        let sought = file.seek(SeekFrom::Start(tensor.file_offset() + at));
        sought.and_then(|_| file.read_exact(piece)).map_err(|e| {
            Failure::io(format!("can't read {} of {}", tensor.name(), self.parsed.path().display()), e)
        })
    }
}

/// One pass over the model, and how far it is.
struct Work<'a> {
    bar: ProgressBar,
    interrupt: &'a Interrupt,
}

impl<'a> Work<'a> {
    /// Writes a file anew.
    fn write(&self, input: &Shard, output: Target, alignment: u64) -> Result<OutputFile<'a>> {
        let gguf = input.parsed.gguf();
        let header = header(&gguf.metadata(), gguf.tensors(), alignment)
            .map_err(|e| Failure::of(Kind::BadModel, e))?;
        let output = output.create(self.interrupt)?;
        let cannot = |e| output.failure(e);
        let mut writer = header.begin(BufWriter::new(output.file())).map_err(cannot)?;
        let mut buffer = vec![0; PIECE_BYTES];
        for tensor in gguf.tensors() {
            for (at, n_bytes) in pieces(tensor.n_bytes()) {
                let piece = &mut buffer[..n_bytes];
                input.read(&tensor, at, piece)?;
                writer.write(tensor.name(), piece).map_err(cannot)?;
                self.bar.inc(n_bytes as u64);
            }
        }
        writer.finish().map_err(cannot)?;
        Ok(output)
    }

    /// Whether two files have the same metadata, but for the alignment, and the same tensors.
    fn is_same(&self, input: &Shard, output: &Shard) -> Result<bool> {
        let (from, to) = (input.parsed.gguf(), output.parsed.gguf());
        if !from.tensors().map(described).eq(to.tensors().map(described))
            || !is_same_metadata(&from.metadata(), &to.metadata())
        {
            return Ok(false);
        }
        let (mut expected, mut found) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        for (a, b) in from.tensors().zip(to.tensors()) {
            for (at, n_bytes) in pieces(a.n_bytes()) {
                let (expected, found) = (&mut expected[..n_bytes], &mut found[..n_bytes]);
                input.read(&a, at, expected)?;
                output.read(&b, at, found)?;
                if expected != found {
                    return Ok(false);
                }
                self.bar.inc(n_bytes as u64);
            }
        }
        Ok(true)
    }
}

/// Where each piece of so many bytes begins, and its length.
fn pieces(n_bytes: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..n_bytes).step_by(PIECE_BYTES).map(move |at| (at, (n_bytes - at).min(PIECE_BYTES as u64) as usize))
}

/// The same metadata and tensors with another alignment, which is added at the end if there was none.
fn header<'a>(
    metadata: &Metadata<'a>,
    tensors: impl Iterator<Item = Tensor<'a>>,
    alignment: u64,
) -> metallic_gguf::Result<GgufWriter> {
    let mut writer = GgufWriter::new();
    for (key, value) in metadata.iter() {
        writer.set(key, if key == ALIGNMENT_KEY { alignment.into() } else { value })?;
    }
    if metadata.get(ALIGNMENT_KEY).is_none() {
        writer.set(ALIGNMENT_KEY, alignment)?;
    }
    for tensor in tensors {
        writer.tensor(tensor.name(), tensor.ggml_type(), tensor.shape())?;
    }
    Ok(writer)
}

/// What the directory says of a tensor, but for its place.
fn described(tensor: Tensor<'_>) -> (String, metallic_gguf::GgmlType, Vec<u64>) {
    (tensor.name().to_owned(), tensor.ggml_type(), tensor.shape().to_vec())
}

fn is_same_metadata(a: &Metadata<'_>, b: &Metadata<'_>) -> bool {
    let (a, b) = (without_alignment(a), without_alignment(b));
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && is_same_value(a.1, b.1))
}

fn without_alignment<'a>(metadata: &Metadata<'a>) -> Vec<(&'a str, Value<'a>)> {
    metadata.iter().filter(|(key, _)| *key != ALIGNMENT_KEY).collect()
}

/// Whether two values have the same bits, which a comparison of floats would not tell.
fn is_same_value(a: Value<'_>, b: Value<'_>) -> bool {
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::Array(a), Value::Array(b)) => {
            let is_alike = a.element_type() == b.element_type() && a.len() == b.len();
            is_alike && a.iter().zip(b).all(|(a, b)| is_same_value(a, b))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use metallic_gguf::{ArrayBuf, GgmlType, ValueType};

    use super::*;

    /// A file with one tensor that ends in a second piece.
    fn write(path: &Path, floats: [f32; 2], name: &str, last: u8) -> Shard {
        let mut writer = GgufWriter::new();
        writer.set("floats", &ArrayBuf::new(ValueType::F32, floats).unwrap()).unwrap();
        writer.tensor(name, GgmlType::I8, &[PIECE_BYTES as u64 + 1]).unwrap();
        let mut data = writer.begin(File::create(path).unwrap()).unwrap();
        data.write(name, &vec![1; PIECE_BYTES]).unwrap();
        data.write(name, &[last]).unwrap();
        data.finish().unwrap();
        Shard::open(path).unwrap()
    }

    #[test]
    fn every_difference_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let nan = f32::from_bits(0x7fc0_0001);
        let file = |name: &str| folder.path().join(name);
        let original = write(&file("original"), [nan, 0.0], "t", 7);
        let interrupt = Interrupt::default();
        let work = Work { bar: ProgressBar::hidden(), interrupt: &interrupt };
        for (floats, name, last, same) in [
            ([nan, 0.0], "t", 7, true),
            ([f32::NAN, 0.0], "t", 7, false),
            ([nan, -0.0], "t", 7, false),
            ([nan, 0.0], "u", 7, false),
            ([nan, 0.0], "t", 8, false),
        ] {
            let other = write(&file("other"), floats, name, last);
            assert_eq!(work.is_same(&original, &other).unwrap(), same, "{floats:?} {name} {last}");
            drop(other);
        }
        let output = Target::check(&file("aligned"), &[], false).unwrap();
        let output = work.write(&original, output, 4096).unwrap();
        assert!(work.is_same(&original, &Shard::written(&output).unwrap()).unwrap());
    }
}
