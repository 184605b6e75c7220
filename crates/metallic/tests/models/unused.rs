//! What a file has and no code uses is told, once, and nothing else is.

use std::path::Path;

use metallic::gguf::{Gguf, Value};
use metallic::model::{unread_keys, unused_tensors};
use metallic::testing::{edited, tiny_model};
use metallic::{Error, GgufFile, GgufLoader};

use crate::oracles::{Oracles, architecture, model};
use crate::warnings::warnings_of;

type Keys<'a> = &'a [(&'a str, Option<Value<'a>>)];
type Tensors<'a> = &'a [(&'a str, Option<&'a [u64]>)];

/// The warnings of a load, which must succeed.
fn warnings(path: &Path) -> Vec<String> {
    let load =
        || GgufLoader::new(GgufFile::open(path).expect("a model")).threads(1).context_length(64).load();
    let (loaded, warnings) = warnings_of(load);
    loaded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    warnings
}

fn warnings_of_tiny(keys: Keys<'_>, tensors: Tensors<'_>) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let bytes = edited(&tiny_model().expect("a model"), keys, tensors).expect("a model");
    std::fs::write(&path, bytes).expect("a file");
    warnings(&path)
}

#[test]
fn good_models_are_loaded_without_a_warning() {
    let real = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"].into_iter().filter_map(model);
    let oracles = Oracles::find();
    let paths = oracles.iter().flat_map(|oracles| {
        oracles.supported().into_iter().map(|name| oracles.path(&format!("{name}.gguf")))
    });
    for path in paths.chain(real) {
        let expected: &[&str] = match path.to_str().expect("UTF-8") {
            // Norms of keys without norms of queries, which llama.cpp leaves out as well.
            path if path.ends_with("archs/mpt-dense.gguf") => {
                &["the file has tensors that no code uses: blk.*.attn_k_norm.bias, blk.*.attn_k_norm.weight"]
            }
            // The same weights in two forms.
            path if path.ends_with("archs/qwen3next-moe.gguf") => {
                &["the file has tensors that no code uses: blk.*.ssm_in.weight"]
            }
            _ => &[],
        };
        assert_eq!(warnings(&path), expected, "{}", path.display());
    }
}

#[test]
fn keys_that_may_change_the_model_are_told() {
    let told: Keys<'_> = &[
        ("llama.residual_scale", Some(0.5_f32.into())),
        ("llama.attention.sliding_window", Some(128_u32.into())),
        ("llama.from_the_future", Some("yes".into())),
        ("llama.rope.freq_base_swa", Some(5000_f32.into())),
    ];
    let found = warnings_of_tiny(told, &[]);
    let [warning] = found.as_slice() else { panic!("{found:?}") };
    assert!(told.iter().all(|(key, _)| warning.contains(key)), "{warning}");

    let harmless: Keys<'_> = &[
        ("llama.residual_scale", Some(1_f32.into())),
        ("llama.attention.sliding_window", Some(0_u32.into())),
        ("llama.attention.causal", Some(true.into())),
        ("llama.rope.scaling.yarn_beta_fast", Some(16_f32.into())), // without YaRN
        ("llama.expert_weights_norm", Some(true.into())),           // without experts
        ("llama.vocab_size", Some(259_u32.into())),
        ("llama.vision.block_count", Some(27_u32.into())),
        ("llama.tensor_data_layout", Some("Meta AI original pth".into())),
        ("qwen2.residual_scale", Some(0.5_f32.into())), // of another architecture
        ("general.from_the_future", Some(1_u32.into())),
    ];
    assert_eq!(warnings_of_tiny(harmless, &[]), [""; 0]);
}

#[test]
fn tensors_that_may_change_the_model_are_told() {
    let shape: Option<&[u64]> = Some(&[32]);
    let found = warnings_of_tiny(
        &[],
        &[("blk.0.attn_sub_norm.weight", shape), ("blk.1.attn_sub_norm.weight", shape)],
    );
    assert_eq!(found, ["the file has tensors that no code uses: blk.*.attn_sub_norm.weight"]);
    // Of layers that guess further tokens, of a head for another use, of a model that sees.
    let other =
        [("blk.2.attn_norm.weight", shape), ("cls.output.weight", shape), ("v.patch_embd.bias", shape)];
    assert_eq!(warnings_of_tiny(&[], &other), [""; 0]);
}

/// Biases and scales are parts of weights: without them, these are other weights.
#[test]
fn parts_of_weights_that_no_code_applies_are_errors() {
    for (name, weight) in [
        ("blk.0.attn_q.scale", "blk.0.attn_q.weight"),
        ("blk.1.ffn_down.scale", "blk.1.ffn_down.weight"),
        ("token_embd.bias", "token_embd.weight"),
    ] {
        let bytes = edited(&tiny_model().expect("a model"), &[], &[(name, Some(&[1]))]).expect("a model");
        let error = unused_tensors(&Gguf::parse(&bytes).expect("a model")).expect_err("a part of a weight");
        let Error::UnusedPart { name: part, weight: of } = error else { panic!("{error}") };
        assert_eq!((&*part, &*of), (name, weight));
    }
}

#[test]
fn models_that_see_both_ways_are_refused() {
    let Some(oracles) = Oracles::find() else { return };
    for name in oracles.supported() {
        let key = format!("{}.attention.causal", architecture(&name));
        let bytes = oracles.read(&format!("{name}.gguf"));
        let bytes = edited(&bytes, &[(&key, Some(false.into()))], &[]).expect("a model");
        let error = unread_keys(&Gguf::parse(&bytes).expect("a model")).expect_err(&name);
        assert!(error.to_string().contains(&key), "{name}: {error}");
    }
}

/// Windowed layers may turn with a base of their own, which is that of all layers where the file does not say.
#[test]
fn windowed_layers_turn_with_their_own_base() {
    let Some(oracles) = Oracles::find() else { return };
    let tokens = oracles.tokens();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    for architecture in ["cohere2", "exaone4", "gemma2", "gpt-oss", "olmo2"] {
        let kind = if architecture == "gpt-oss" { "moe" } else { "dense" };
        let bytes = oracles.read(&format!("archs2/{architecture}-{kind}.gguf"));
        let gguf = Gguf::parse(&bytes).expect("an oracle");
        let base: f32 = gguf.metadata().required(&format!("{architecture}.rope.freq_base")).expect("a base");
        let key = format!("{architecture}.rope.freq_base_swa");
        // Each layer windowed, in a model that may have no pattern by itself.
        let pattern = format!("{architecture}.attention.sliding_window_pattern");
        let window = format!("{architecture}.attention.sliding_window");
        let logits = |base: Option<f32>| {
            let keys: Keys<'_> = &[
                (&key, base.map(Value::from)),
                (&pattern, Some(0_u32.into())),
                (&window, Some(16_u32.into())),
            ];
            std::fs::write(&path, edited(&bytes, keys, &[]).expect("a model")).expect("a file");
            let mut model =
                GgufLoader::new(GgufFile::open(&path).expect("a model")).threads(1).load().expect("runs");
            let mut all = Vec::new();
            let mut sink = |_, logits: &mut [f32]| all.extend_from_slice(logits);
            model.evaluate(&tokens, 0..tokens.len(), &mut sink).expect("logits");
            all
        };
        let expected = logits(None);
        assert!(logits(Some(base)) == expected, "{architecture}: the same base");
        assert!(logits(Some(base / 10.0)) != expected, "{architecture}: another base");
    }
}
