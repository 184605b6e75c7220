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

    /// Models whose architecture runs, each as the path of its file without the ending: `archs/llama-dense`. Those of
    /// `archs2` have their norms near 1, so that attention is not flat and a wrong rotation shows.
    pub(crate) fn supported(&self) -> Vec<String> {
        let runs = metallic::model::supported_architectures();
        let mut models = Vec::new();
        for folder in ["archs", "archs2"] {
            for entry in std::fs::read_dir(self.path(folder)).expect("a folder of models") {
                let file = entry.expect("an entry").file_name().into_string().expect("UTF-8");
                let name = file.strip_suffix(".gguf").map(|name| format!("{folder}/{name}"));
                models.extend(name.filter(|name| runs.contains(&architecture(name))));
            }
        }
        assert!(models.len() >= 80, "only {} models", models.len());
        models.sort();
        models
    }
}

/// Whether everything is to be tested, however long it takes, rather than a part of each kind: `.ci/run full`.
pub(crate) fn is_full() -> bool {
    std::env::var_os("METALLIC_FULL").is_some()
}

/// The architecture of a model of [`Oracles::supported`].
pub(crate) fn architecture(model: &str) -> &str {
    let name = model.rsplit_once('/').map_or(model, |(_, name)| name);
    name.rsplit_once('-').expect("ARCH-KIND").0
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
