//! Files written by llama.cpp: models of 40 architectures, and vocabularies that end after their metadata.

use std::env;
use std::fs;
use std::path::PathBuf;

use metallic_gguf::{Array, Gguf, GgufWriter};

use crate::robustness::replay;

/// The GGUF files in a folder of the oracles; none, with a line that says so, where there are no oracles.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let beside_the_repository = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracles");
    let folder = env::var_os("METALLIC_ORACLES").map_or_else(beside_the_repository, Into::into).join(folder);
    let Ok(entries) = fs::read_dir(&folder) else {
        assert!(env::var("CI").as_deref() != Ok("true"), "no oracles at {}", folder.display());
        println!("skipped: no oracles at {}", folder.display());
        return Vec::new();
    };
    let paths =
        entries.map(|entry| entry.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "gguf"));
    paths.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

#[test]
fn models_of_many_architectures() {
    for (path, bytes) in files("archs") {
        let gguf = Gguf::parse(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        let architecture: &str = gguf.metadata().required("general.architecture").unwrap();
        let n_layers: u64 = gguf.metadata().required(&format!("{architecture}.block_count")).unwrap();
        let last = format!("blk.{}.", n_layers - 1);
        assert!(gguf.tensors().any(|tensor| tensor.name().starts_with(&last)), "{path}");
        // Written without gaps, so the last tensor ends the file, but for padding.
        let end = gguf.tensors().map(|tensor| tensor.file_offset() + tensor.n_bytes()).max().unwrap();
        assert_eq!(end.next_multiple_of(gguf.alignment()), bytes.len() as u64, "{path}");
        assert!(copy(&gguf) == bytes, "{path}: a copy differs");
        replay(&bytes);
    }
}

/// Everything in a model, written anew.
fn copy(gguf: &Gguf<'_>) -> Vec<u8> {
    let mut file = GgufWriter::new();
    for (key, value) in gguf.metadata().iter() {
        file.set(key, value).unwrap();
    }
    for tensor in gguf.tensors() {
        file.tensor(tensor.name(), tensor.ggml_type(), tensor.shape()).unwrap();
    }
    let mut data = file.begin(Vec::new()).unwrap();
    for tensor in gguf.tensors() {
        data.write(tensor.name(), tensor.data()).unwrap();
    }
    data.finish().unwrap()
}

#[test]
fn vocabularies_without_tensors() {
    for (path, bytes) in files("tokenizers") {
        let gguf = Gguf::parse(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(gguf.tensors().len(), 0, "{path}");
        let tokens: Array<'_> = gguf.metadata().required("tokenizer.ggml.tokens").unwrap();
        let types: Vec<i32> = gguf.metadata().required("tokenizer.ggml.token_type").unwrap();
        assert_eq!(tokens.strings().unwrap().count(), types.len(), "{path}");
    }
}
