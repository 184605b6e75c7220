//! Every architecture against the logits that an independent engine computed.

use std::path::Path;

use metallic::backend::conformance::nmse;
use metallic::{GgufFile, GgufLoader};

use crate::oracles::{Oracles, architecture};

/// Normalised mean squared error; the oracle's own noise is about 1e-7.
const MAX_NMSE: f64 = 1e-5;

fn logits(path: &Path, tokens: &[u32]) -> metallic::Result<Vec<f32>> {
    let mut model = GgufLoader::new(GgufFile::open(path)?).threads(2).load()?;
    let mut all = Vec::new();
    model.evaluate(tokens, 0..tokens.len(), &mut |_, logits| all.extend_from_slice(logits))?;
    Ok(all)
}

#[test]
fn logits_agree_with_the_oracles() {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    let mut failures = Vec::new();
    for name in oracles.supported() {
        let expected = oracles.floats(&format!("{name}.logits.f32"));
        match logits(&oracles.path(&format!("{name}.gguf")), &tokens) {
            Ok(found) => {
                let error = nmse(&found, &expected);
                println!("{name}: {error:.2e}");
                if error.is_nan() || error > MAX_NMSE {
                    failures.push(format!("{name}: {error:.2e}"));
                }
            }
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Selection of experts: the files use all they have, so the key is rewritten to 1, as for the oracle.
#[test]
fn logits_agree_when_one_expert_is_chosen() {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    let folder = tempfile::tempdir().unwrap();
    let mut n_passed = 0;
    for name in oracles.supported().iter().filter(|name| name.ends_with("-moe")) {
        let mut bytes = oracles.read(&format!("{name}.gguf"));
        let key = format!("{}.expert_used_count", architecture(name));
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len();
        assert_eq!(bytes[at..at + 8], [4, 0, 0, 0, 2, 0, 0, 0], "a 32-bit count of 2");
        bytes[at + 4] = 1;
        let path = folder.path().join("top1.gguf");
        std::fs::write(&path, bytes).unwrap();

        let error =
            nmse(&logits(&path, &tokens).unwrap(), &oracles.floats(&format!("{name}.top1.logits.f32")));
        println!("{name} with one expert: {error:.2e}");
        assert!(error < MAX_NMSE, "{name}: {error:.2e}");
        n_passed += 1;
    }
    assert!(n_passed >= 22);
}
