//! Whole models against the logits that an independent engine computed.

use std::path::PathBuf;

use metallic::{GgufFile, GgufLoader, Model, backend::KvType};

use crate::{gpu, nmse};

/// Normalised mean squared error; rounding all activations to half precision costs at most 2.5e-6.
const MAX_NMSE: f64 = 1e-4;

/// Models that must run.
const MODELS: [&str; 2] = ["archs/llama-dense", "archs2/llama-dense"];

/// The folder named by `METALLIC_ORACLES`, or the one beside the repository.
fn oracles() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/oracles");
    let root = std::env::var_os("METALLIC_ORACLES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    if root.is_dir() {
        return Some(root);
    }
    assert!(std::env::var_os("CI").is_none(), "no oracles in {}", root.display());
    println!("skipped: no oracles in {}; METALLIC_ORACLES names their folder", root.display());
    None
}

fn floats(path: PathBuf) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn tokens(root: &std::path::Path) -> Vec<u32> {
    let text = std::fs::read_to_string(root.join("archs/tokens.txt")).unwrap();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|id| id.parse().ok()).collect()
}

fn logits(model: &mut Model, tokens: &[u32]) -> metallic::Result<Vec<f32>> {
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits))?;
    Ok(all)
}

fn load(path: PathBuf, n_batch: usize) -> Option<metallic::Result<Model>> {
    let gpu = gpu()?;
    Some(GgufFile::open(path).and_then(|file| {
        GgufLoader::new(file).kv_type(KvType::F32).batch(n_batch).place(gpu, |_| true).load()
    }))
}

#[test]
fn logits_agree_with_the_oracles() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    for name in MODELS {
        let Some(gpu) = gpu() else { return };
        let counters = gpu.counters();
        let file = GgufFile::open(root.join(format!("{name}.gguf"))).unwrap();
        let mut model = GgufLoader::new(file).kv_type(KvType::F16).place(gpu, |_| true).load().unwrap();
        let before = counters.stats();
        let found = logits(&mut model, &tokens).unwrap();
        let after = counters.stats();
        let error = nmse(&found, &floats(root.join(format!("{name}.logits.f32"))));
        println!("{name} on {}: {error:.2e}; before {before:?}, after {after:?}", model.description());
        assert!(error < MAX_NMSE, "{name}: {error:.2e}");
    }
}

/// The order of a row's sums is its own.
#[test]
fn logits_have_the_same_bits_in_batches_of_any_size() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    let of_batch = |n_batch: usize| {
        let path = root.join("archs2/llama-dense.gguf");
        load(path, n_batch).map(|model| logits(&mut model.unwrap(), &tokens).unwrap())
    };
    let Some(whole) = of_batch(tokens.len()) else { return };
    for n_batch in [1, 7] {
        let found = of_batch(n_batch).expect("a device");
        let same = found.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "batches of {n_batch}: {:.2e}", nmse(&found, &whole));
    }
}

/// Every other model runs as well, or is refused by an error that says what can't be done.
#[test]
fn other_models_agree_or_are_refused() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    let known = metallic::model::supported_architectures();
    let (mut n_agree, mut refused, mut failures) = (0, Vec::new(), Vec::new());
    let full = std::env::var_os("METALLIC_FULL").is_some();
    let folders: &[&str] = if full { &["archs", "archs2"] } else { &["archs2"] };
    for (i, path) in folders.iter().flat_map(|folder| gguf_files(&root.join(folder))).enumerate() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let architecture = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
        if !known.contains(&architecture) || !(full || i % 8 == 0) {
            continue;
        }
        let expected = floats(path.with_extension("logits.f32"));
        let Some(model) = load(path, 512) else { return };
        match model.and_then(|mut model| logits(&mut model, &tokens)) {
            Ok(found) => {
                let error = nmse(&found, &expected);
                println!("{name}: {error:.2e}");
                n_agree += usize::from(error < MAX_NMSE);
                if error.is_nan() || error >= MAX_NMSE {
                    failures.push(format!("{name}: {error:.2e}"));
                }
            }
            Err(metallic::Error::Backend { source }) => refused.push(format!("{name}: {source}")),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    println!("{n_agree} agree; refused: {refused:#?}");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(n_agree > 0);
}

fn gguf_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "gguf")).collect();
    files.sort();
    files
}
