//! Whole models against the logits that an independent engine computed.

use std::collections::HashSet;
use std::path::PathBuf;

use metallic::backend::KvType;
use metallic::backend::conformance::nmse;
use metallic::model::{Piece, Role};
use metallic::{GgufFile, GgufLoader, Model};

use crate::gpu;

/// Normalised mean squared error; rounding all activations to half precision costs at most 2.5e-6.
pub(crate) const MAX_NMSE: f64 = 1e-4;

/// Models that must run.
const MODELS: [&str; 2] = ["archs/llama-dense", "archs2/llama-dense"];

/// The folder named by `METALLIC_ORACLES`, or the one beside the repository.
pub(crate) fn oracles() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/oracles");
    let root = std::env::var_os("METALLIC_ORACLES").map_or_else(|| PathBuf::from(default), PathBuf::from);
    if root.is_dir() {
        return Some(root);
    }
    assert!(std::env::var_os("CI").is_none(), "no oracles in {}", root.display());
    println!("skipped: no oracles in {}; METALLIC_ORACLES names their folder", root.display());
    None
}

pub(crate) fn floats(path: PathBuf) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

pub(crate) fn tokens(root: &std::path::Path) -> Vec<u32> {
    let text = std::fs::read_to_string(root.join("archs/tokens.txt")).unwrap();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|id| id.parse().ok()).collect()
}

pub(crate) fn logits(model: &mut Model, tokens: &[u32]) -> metallic::Result<Vec<f32>> {
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits))?;
    Ok(all)
}

/// The logits of tokens that are generated after one another.
pub(crate) fn generated(model: &mut Model, tokens: &[u32]) -> Vec<f32> {
    let sequence = model.create_sequence();
    let mut all = Vec::new();
    for (start, tokens) in tokens.chunks(1).enumerate() {
        let piece = Piece { sequence, start, tokens, role: Role::Generated, logits: 0..1 };
        model.forward(&[piece], &mut |_, logits| all.extend_from_slice(logits)).unwrap();
    }
    model.release_sequence(sequence);
    all
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

/// Every model of `archs2`, which has every architecture, with norms near 1, so that attention is not flat; in a full run
/// those of `archs` as well.
#[test]
fn models_of_every_architecture_agree() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    let known = metallic::model::supported_architectures();
    let (mut architectures, mut failures) = (HashSet::new(), Vec::new());
    let full = std::env::var_os("METALLIC_FULL").is_some();
    let folders: &[&str] = if full { &["archs", "archs2"] } else { &["archs2"] };
    for path in folders.iter().flat_map(|folder| gguf_files(&root.join(folder))) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let architecture = name.rsplit_once('-').map_or(&*name, |(name, _)| name);
        if !known.contains(&architecture) {
            continue;
        }
        architectures.insert(architecture.to_owned());
        let Some(gpu) = gpu() else { return };
        let loader = GgufLoader::new(GgufFile::open(&path).unwrap()).kv_type(KvType::F32);
        let found = loader.place(gpu, |_| true).load().and_then(|mut model| logits(&mut model, &tokens));
        match found.map(|found| nmse(&found, &floats(path.with_extension("logits.f32")))) {
            Ok(error) => {
                println!("{name}: {error:.2e}");
                if error.is_nan() || error >= MAX_NMSE {
                    failures.push(format!("{name}: {error:.2e}"));
                }
            }
            Err(error) => failures.push(format!("{name}: {error:?}")),
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(architectures.len(), known.len(), "{architectures:?} of {known:?}");
}

/// With keys and values as Q8_0 logits are not farther from the oracles than the CPU's, which rounds queries to 8 bits
/// besides; that is what is between the two. Models where rounding sends a token to another expert are left out.
#[test]
fn models_with_keys_and_values_of_8_bits_agree() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    for name in ["llama-dense", "gemma3-dense", "phi3-dense", "deepseek2-moe", "qwen3next-moe"] {
        let path = root.join(format!("archs2/{name}.gguf"));
        let loader = || GgufLoader::new(GgufFile::open(&path).unwrap()).kv_type(KvType::Q8_0);
        let Some(gpu) = gpu() else { return };
        let found = logits(&mut loader().place(gpu, |_| true).load().unwrap(), &tokens).unwrap();
        let on_cpu = logits(&mut loader().load().unwrap(), &tokens).unwrap();
        let exact = floats(path.with_extension("logits.f32"));
        let [error, of_cpu, between] = [nmse(&found, &exact), nmse(&on_cpu, &exact), nmse(&found, &on_cpu)];
        println!("{name}: {error:.2e}, the CPU {of_cpu:.2e}, between them {between:.2e}");
        assert!(error < 1.05 * of_cpu && between < MAX_NMSE, "{name}: {error:.2e}, {between:.2e}");
    }
}

/// Some parts on the CPU and some on the device: every other one, and the last few.
#[test]
fn models_in_two_places_agree() {
    let Some(root) = oracles() else { return };
    let tokens = tokens(&root);
    for name in ["llama-dense", "deepseek2-moe", "lfm2-dense", "qwen3next-moe"] {
        let path = root.join(format!("archs2/{name}.gguf"));
        let expected = floats(path.with_extension("logits.f32"));
        for suffix in [false, true] {
            let takes = move |part: usize| if suffix { part >= 3 } else { part.is_multiple_of(2) };
            let which = if suffix { "all from the fourth part on" } else { "every other part" };
            let Some(gpu) = gpu() else { return };
            let loader = GgufLoader::new(GgufFile::open(&path).unwrap()).kv_type(KvType::F32);
            let mut model = loader.place(gpu, takes).load().unwrap();
            let error = nmse(&logits(&mut model, &tokens).unwrap(), &expected);
            println!("{name}, {which} on the device: {error:.2e}");
            assert!(error < MAX_NMSE, "{name}, {which}: {error:.2e}");
        }
    }
}

fn gguf_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "gguf")).collect();
    files.sort();
    files
}
