//! Where the oracles are, and how results are compared with them.

use std::path::PathBuf;

/// The folder of answers computed by an independent engine.
pub(crate) struct Oracles {
    root: PathBuf,
}

impl Oracles {
    /// The folder named by `METALLIC_ORACLES`, or the one beside the repository. Where there is none, the
    /// test that asks says that it is skipped; under CI that is a failure.
    pub(crate) fn find() -> Option<Self> {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/oracles");
        let root = std::env::var_os("METALLIC_ORACLES").map_or_else(|| PathBuf::from(default), PathBuf::from);
        if root.is_dir() {
            return Some(Self { root });
        }
        assert!(std::env::var_os("CI").is_none(), "no oracles in {}", root.display());
        println!("skipped: no oracles in {}; METALLIC_ORACLES names their folder", root.display());
        None
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Little-endian floats.
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.read(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The token ids that the architectures' logits were computed for.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        let text = String::from_utf8(self.read("archs/tokens.txt")).expect("ASCII");
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|id| id.parse().ok()).collect()
    }

    /// Names of the models, such as `llama-dense`.
    pub(crate) fn architectures(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.path("archs")).expect("a folder of models");
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        let mut names: Vec<String> =
            files.filter_map(|entry| Some(name(entry.ok()?)?.strip_suffix(".gguf")?.to_owned())).collect();
        names.sort();
        names
    }

    /// Names of the models whose architecture runs.
    pub(crate) fn supported(&self) -> Vec<String> {
        let supported = metallic::model::supported_architectures();
        let runs = |name: &String| name.rsplit_once('-').is_some_and(|(arch, _)| supported.contains(&arch));
        self.architectures().into_iter().filter(runs).collect()
    }
}

/// Normalised mean squared error: Σ(a−b)² / Σb².
pub(crate) fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    error / expected.iter().map(|b| square(f64::from(*b))).sum::<f64>()
}

/// A real model by file name, from the folder named by `METALLIC_MODELS` or from `target/models`. Where it
/// is not, the test that asks says so; under CI that is a failure.
pub(crate) fn model(name: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/models");
    let folder = std::env::var_os("METALLIC_MODELS").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let path = folder.join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no {}", path.display());
    println!("skipped: no {}; CONTRIBUTING.md says how to get it", path.display());
    None
}
