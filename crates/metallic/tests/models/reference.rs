//! What the oracles are too short to show, against `tools/reference.py`: windows that slide over pages, positions beyond
//! the context a model was first trained for, states that have read much.
//!
//! The files are oracles with other metadata, so the weights are those that the oracles have proved to be used right.

use std::path::Path;
use std::process::Command;

use metallic::backend::KvType;
use metallic::backend::conformance::nmse;
use metallic::gguf::Value;
use metallic::testing::edited;
use metallic::{GgufFile, GgufLoader};

use crate::oracles::Oracles;

/// Floats against doubles; with AMX, inputs of 16 binary digits.
const MAX_NMSE: f64 = 1e-9;
const N_TOKENS: usize = 400;

/// The reference, where it can run. Where Python lacks what it needs, the test that asks says so; under CI that is a
/// failure.
fn reference() -> Option<&'static Path> {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/reference.py"));
    let found = Command::new("python3").args(["-c", "import gguf, numpy"]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(script);
    }
    assert!(std::env::var_os("CI").is_none(), "no Python with gguf and numpy");
    println!("skipped: no Python with gguf and numpy");
    None
}

/// What the reference says of an oracle with other metadata, and what the engine says, with so long a context.
fn check(name: &str, keys: &[(&str, Value<'_>)], n_ctx: usize) {
    let (Some(oracles), Some(script)) = (Oracles::find(), reference()) else { return };
    let architecture = name.rsplit_once('-').expect("ARCH-KIND").0;
    let keys: Vec<_> =
        keys.iter().map(|(key, value)| (format!("{architecture}.{key}"), Some(*value))).collect();
    let keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let (path, out) = (folder.path().join("model.gguf"), folder.path().join("logits.f32"));
    let bytes = edited(&oracles.read(&format!("archs/{name}.gguf")), &keys, &[]).expect("a model");
    std::fs::write(&path, bytes).expect("a file");
    let tokens: Vec<u32> = (0..N_TOKENS as u32).map(|i| (i * i + 7 * i + i / 5) % 128).collect();

    let ids = tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let n_ctx_text = n_ctx.to_string();
    let mut command = Command::new("python3");
    command.arg(script).arg(&path).args(["--tokens", &ids, "--context", &n_ctx_text, "--out"]).arg(&out);
    let output = command.output().expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Vec<f32> =
        std::fs::read(&out).expect("logits").as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();

    let loader = GgufLoader::new(GgufFile::open(&path).expect("a model")).threads(2);
    let mut model = loader.context_length(n_ctx).kv_type(KvType::F32).batch(100).load().expect("a model");
    let mut found = Vec::new();
    model
        .evaluate(&tokens, 0..tokens.len(), &mut |_, logits| found.extend_from_slice(logits))
        .expect("logits");
    let error = nmse(&found, &expected);
    println!("{name} with {keys:?}, {n_ctx} positions: {error:.1e}");
    assert!(error < MAX_NMSE, "{name} with {keys:?}: {error:.1e}");
}

#[test]
fn windows_slide_over_steps_and_pages() {
    for name in ["gemma2-dense", "gemma3-dense", "cohere2-dense", "olmo2-dense", "phi3-dense"] {
        for window in [1_u32, 32, 150, 300] {
            check(name, &[("attention.sliding_window", window.into())], 512);
        }
    }
}

#[test]
fn yarn_reaches_beyond_the_original_context() {
    let yarn = [
        ("rope.scaling.type", "yarn".into()),
        ("rope.scaling.factor", 8.0_f32.into()),
        ("rope.scaling.original_context_length", 64_u32.into()),
    ];
    check("llama-dense", &yarn, 512);
    check("olmo2-dense", &yarn, 512);
    let temperature = [("attention.temperature_scale", 0.1_f32.into())];
    let multiplier = [("rope.scaling.yarn_log_multiplier", 1.0_f32.into())];
    check("mistral3-dense", &[&yarn[..], &temperature, &multiplier].concat(), 512);
    let multiplier = [("rope.scaling.yarn_log_multiplier", 0.0707_f32.into())];
    check("deepseek2-moe", &[&yarn[..], &multiplier].concat(), 512);
    let linear = [("rope.scaling.type", "linear".into()), ("rope.scaling.factor", 4.0_f32.into())];
    check("gemma3-dense", &linear, 512);
}

#[test]
fn long_contexts_have_factors_of_their_own() {
    let original = [("rope.scaling.original_context_length", 450_u32.into())];
    let factor = [("rope.scaling.attn_factor", 1.19_f32.into())];
    for n_ctx in [450, 451] {
        check("phi3-dense", &[&original[..], &factor].concat(), n_ctx);
    }
}

#[test]
fn states_read_much() {
    check("mamba2-dense", &[], 512);
    check("qwen35-dense", &[], 512);
    check("deepseek2-moe", &[("expert_used_count", 1_u32.into())], 512);
}
