//! Models whose metadata or tensors no model can have: each one clear error, before anything is allocated.

#![allow(clippy::unwrap_used, reason = "a test fails where it panics")]

use std::error::Error as _;

use metallic::gguf::{Gguf, Value};
use metallic::model::unused_tensors;
use metallic::{GgufFile, GgufLoader, Model, testing};

/// The tiny model with one key replaced (or removed) and one tensor left out or given another shape.
fn load(key: &str, value: Option<Value<'_>>, tensor: &str, shape: Option<&[u64]>) -> metallic::Result<Model> {
    let model = testing::tiny_model().unwrap();
    let (keys, tensors) = ([(key, value)], [(tensor, shape)]);
    let keys = if key.is_empty() { &[][..] } else { &keys[..] };
    let bytes = testing::edited(&model, keys, &tensors).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    std::fs::write(&path, bytes).unwrap();
    GgufLoader::new(GgufFile::open(&path)?).threads(1).load()
}

fn message(result: metallic::Result<Model>) -> String {
    let error = result.err().expect("an error");
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        message += &format!(": {error}");
        source = error.source();
    }
    message
}

#[test]
fn values_that_no_model_can_have_are_named() {
    let cases: &[(&str, Option<Value<'static>>, &[&str])] = &[
        ("general.architecture", None, &["general.architecture"]),
        ("general.architecture", Some("mammoth".into()), &["\"mammoth\"", "supported are bloom, "]),
        ("general.architecture", Some(7_u32.into()), &["general.architecture"]),
        ("llama.context_length", None, &["llama.context_length"]),
        ("llama.context_length", Some(0_u32.into()), &["llama.context_length", "at least 1"]),
        ("llama.embedding_length", Some(0_u32.into()), &["llama.embedding_length", "at least 1"]),
        ("llama.embedding_length", Some((-1_i32).into()), &["llama.embedding_length"]),
        ("llama.embedding_length", Some(64_u32.into()), &["token_embd.weight", "[32, 259]", "[64, 259]"]),
        ("llama.embedding_length", Some(u64::MAX.into()), &["llama.embedding_length", "no model"]),
        ("llama.block_count", Some(0_u32.into()), &["llama.block_count", "at least 1"]),
        ("llama.block_count", Some(3_u32.into()), &["blk.2.attn_norm.weight"]),
        ("llama.block_count", Some(u64::MAX.into()), &["layers"]),
        ("llama.block_count", Some("two".into()), &["llama.block_count"]),
        ("llama.feed_forward_length", Some(0_u32.into()), &["llama.feed_forward_length", "at least 1"]),
        ("llama.feed_forward_length", Some(96_u32.into()), &["blk.0.ffn_gate.weight", "[32, 96]"]),
        ("llama.attention.head_count", Some(0_u32.into()), &["llama.attention.head_count"]),
        ("llama.attention.head_count", Some(3_u32.into()), &["llama.attention.head_count_kv", "divide"]),
        ("llama.attention.head_count", Some(u64::MAX.into()), &["llama.attention.head_count", "no model"]),
        ("llama.attention.head_count_kv", Some(0_u32.into()), &["llama.attention.head_count_kv"]),
        ("llama.attention.head_count_kv", Some(3_u32.into()), &["llama.attention.head_count_kv", "divide"]),
        ("llama.attention.key_length", Some(0_u32.into()), &["llama.attention.key_length"]),
        ("llama.attention.key_length", Some(u64::MAX.into()), &["llama.attention.key_length"]),
        ("llama.attention.value_length", Some(u64::MAX.into()), &["llama.attention.value_length"]),
        ("llama.attention.layer_norm_rms_epsilon", Some(f32::NAN.into()), &["layer_norm_rms_epsilon", "NaN"]),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Some((-1.0_f32).into()),
            &["layer_norm_rms_epsilon", "-1"],
        ),
        ("llama.rope.dimension_count", Some(7_u32.into()), &["llama.rope.dimension_count", "even"]),
        ("llama.rope.dimension_count", Some(64_u32.into()), &["llama.rope.dimension_count", "no longer"]),
        ("llama.rope.freq_base", Some(0.0_f32.into()), &["llama.rope.freq_base", "positive"]),
        ("llama.rope.freq_base", Some(f32::INFINITY.into()), &["llama.rope.freq_base", "positive"]),
        ("llama.rope.scaling.factor", Some((-2.0_f32).into()), &["llama.rope.scaling.factor", "positive"]),
        ("llama.expert_count", Some(4_u32.into()), &["llama.expert_used_count"]),
    ];
    for (key, value, expected) in cases {
        let message = message(load(key, *value, "", None));
        let found = expected.iter().all(|part| message.contains(part));
        assert!(found, "{key} = {value:?}: {message}");
        println!("{key} = {value:?}: {message}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let absent = message(load("", None, "blk.1.ffn_down.weight", None));
    assert!(absent.contains("blk.1.ffn_down.weight") && absent.contains("missing"), "{absent}");
    let both = testing::edited(
        &testing::tiny_model().unwrap(),
        &[],
        &[("blk.0.attn_q.weight", None), ("blk.1.ffn_norm.weight", None)],
    );
    let both = unused_tensors(&Gguf::parse(&both.unwrap()).unwrap()).unwrap_err().to_string();
    assert!(both.contains("missing, blk.0.attn_q.weight, blk.1.ffn_norm.weight:"), "{both}");
    let wrong = message(load("", None, "blk.0.attn_q.weight", Some(&[32, 16])));
    assert!(wrong.contains("blk.0.attn_q.weight") && wrong.contains("[32, 16]"), "{wrong}");
    let empty = message(load("", None, "token_embd.weight", Some(&[32, 0])));
    assert!(empty.contains("token_embd.weight"), "{empty}");
}

/// An unknown architecture says what it is like, and what it has that is not.
#[test]
fn an_unknown_architecture_names_the_nearest() {
    let gguf = testing::tiny_model().unwrap();
    let gguf = Gguf::parse(&gguf).unwrap();
    let mut file = metallic::gguf::GgufWriter::new();
    for (name, value) in gguf.metadata().iter() {
        let value = if name == "general.architecture" { "llamoid".into() } else { value };
        file.set(&name.replace("llama.", "llamoid."), value).unwrap();
    }
    for tensor in gguf.tensors() {
        let name = tensor.name().replace("attn_norm", "attn_pre_norm");
        file.tensor(&name, tensor.ggml_type(), tensor.shape()).unwrap();
    }
    let mut data = file.begin(Vec::new()).unwrap();
    for tensor in gguf.tensors() {
        data.write(&tensor.name().replace("attn_norm", "attn_pre_norm"), tensor.data()).unwrap();
    }
    let bytes = data.finish().unwrap();
    let error = unused_tensors(&Gguf::parse(&bytes).unwrap()).unwrap_err().to_string();
    let expected = "architecture \"llamoid\" is not supported; nearest is llama, which has no use for \
                    blk.*.attn_pre_norm.weight, and needs blk.*.attn_norm.weight; supported are";
    assert!(error.starts_with(expected), "{error}");
}

/// A context that no machine holds is an error of the plan, not of the allocator's.
#[test]
fn a_context_of_any_size_is_planned_or_refused() {
    let bytes = testing::tiny_model().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, bytes).unwrap();
    for n_ctx in [usize::MAX, usize::MAX / 256, 1 << 50] {
        let loader = GgufLoader::new(GgufFile::open(&path).unwrap()).threads(1).context_length(n_ctx);
        assert!(loader.load().is_err(), "{n_ctx}");
    }
}
