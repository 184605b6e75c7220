//! The same model in other containers: split into shards, and in the other byte order.

use std::path::{Path, PathBuf};

use metallic::gguf::{GgmlType, Gguf, GgufWriter, split};
use metallic::testing::edited;
use metallic::{Error, GgufFile, GgufLoader};

use crate::oracles::Oracles;

fn logits(path: &Path, tokens: &[u32]) -> Vec<f32> {
    let file = GgufFile::open(path).expect("a valid model");
    let mut model = GgufLoader::new(file).threads(1).load().expect("a model that runs");
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits)).expect("logits");
    all
}

/// Writes a model as shards of at most `max_bytes`, and returns their paths.
pub(crate) fn write_shards(bytes: &[u8], max_bytes: u64, folder: &Path) -> Vec<PathBuf> {
    let gguf = Gguf::parse(bytes).expect("an oracle");
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value).expect("a value that was read");
    }
    for tensor in gguf.tensors() {
        writer.tensor(tensor.name(), tensor.ggml_type(), tensor.shape()).expect("a tensor that was read");
    }
    let shards = writer.split(max_bytes).expect("shards");
    let (count, mut tensors) = (u16::try_from(shards.len()).expect("few shards"), gguf.tensors());
    let mut paths = Vec::new();
    for (no, shard) in (0..).zip(shards) {
        let path = folder.join(split::shard_name("model", no, count));
        let n_tensors = shard.n_tensors();
        let mut data = shard.begin(std::fs::File::create(&path).expect("a file")).expect("a header");
        for tensor in tensors.by_ref().take(n_tensors) {
            data.write(tensor.name(), tensor.data()).expect("its data");
        }
        data.finish().expect("a whole file");
        paths.push(path);
    }
    paths
}

#[test]
fn a_split_model_opens_from_any_shard() {
    let Some(oracles) = Oracles::find() else { return };
    let (name, tokens) = ("archs/qwen3-dense.gguf", oracles.tokens());
    let expected = logits(&oracles.path(name), &tokens);
    let folder = tempfile::tempdir().expect("a folder");
    let paths = write_shards(&oracles.read(name), 300_000, folder.path());
    assert!(paths.len() >= 3, "{paths:?}");
    for path in &paths {
        assert!(logits(path, &tokens) == expected, "{}", path.display());
    }

    std::fs::remove_file(&paths[1]).expect("a file to remove");
    let Err(Error::Open { path, .. }) = GgufFile::open(&paths[0]) else { panic!("a shard is missing") };
    assert_eq!(path, paths[1]);
}

/// Turns a little-endian file of version 3 whose tensors are F16 and F32 into a big-endian one.
struct Swap<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Swap<'_> {
    fn number(&mut self, n_bytes: usize) -> u64 {
        let field = &mut self.bytes[self.at..self.at + n_bytes];
        let value = field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        field.reverse();
        self.at += n_bytes;
        value
    }

    fn string(&mut self) {
        self.at += self.number(8) as usize;
    }

    fn value(&mut self, kind: u64) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => _ = self.number(2),
            4..=6 => _ = self.number(4),
            8 => self.string(),
            9 => {
                let (kind, n) = (self.number(4), self.number(8));
                (0..n).for_each(|_| self.value(kind));
            }
            _ => _ = self.number(8),
        }
    }

    fn header(&mut self) {
        self.at = 4;
        self.number(4);
        let (n_tensors, n_keys) = (self.number(8), self.number(8));
        for _ in 0..n_keys {
            self.string();
            let kind = self.number(4);
            self.value(kind);
        }
        for _ in 0..n_tensors {
            self.string();
            let n_dims = self.number(4);
            (0..n_dims).for_each(|_| _ = self.number(8));
            self.number(4);
            self.number(8);
        }
    }
}

#[test]
fn a_big_endian_model_gives_the_same_bits() {
    let Some(oracles) = Oracles::find() else { return };
    let (name, tokens) = ("archs/llama-dense.gguf", oracles.tokens());
    let little = oracles.read(name);
    let mut big = little.clone();
    Swap { bytes: &mut big, at: 0 }.header();
    for tensor in Gguf::parse(&little).expect("an oracle").tensors() {
        let start = tensor.file_offset() as usize;
        let width = match tensor.ggml_type() {
            GgmlType::F16 => 2,
            GgmlType::F32 => 4,
            other => panic!("{other} is not known to this test"),
        };
        big[start..start + tensor.n_bytes() as usize].chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("big.gguf");
    std::fs::write(&path, big).expect("a file");
    assert!(logits(&path, &tokens) == logits(&oracles.path(name), &tokens));
}

/// Shards that were merged keep the first one's keys, with a count of 0, and perhaps its name.
#[test]
fn a_model_of_merged_shards_is_whole_whatever_its_name() {
    let Some(oracles) = Oracles::find() else { return };
    let (name, tokens) = ("archs/qwen3-dense.gguf", oracles.tokens());
    let expected = logits(&oracles.path(name), &tokens);
    let folder = tempfile::tempdir().expect("a folder");
    for count in [0_u16, 1] {
        let keys = [
            ("split.no", 0_u16.into()),
            ("split.count", count.into()),
            ("split.tensors.count", 3_i32.into()),
        ];
        let bytes =
            edited(&oracles.read(name), &keys.map(|(key, value)| (key, Some(value))), &[]).expect("a model");
        for name in ["merged.gguf", "merged-00001-of-00003.gguf"] {
            let path = folder.path().join(name);
            std::fs::write(&path, &bytes).expect("a file");
            assert!(logits(&path, &tokens) == expected, "{name}, a count of {count}");
        }
    }
}
