//! Files of every architecture, made wrong in one place: one error, and it names the place.

use metallic::Error;
use metallic::gguf::{ArrayBuf, Gguf, Value, ValueType};
use metallic::model::unused_tensors;
use metallic::testing::edited;

use crate::oracles::{Oracles, architecture};

/// Calls `check` with the name of each architecture and a file of it.
fn for_each_file(check: impl Fn(&str, &[u8])) {
    let Some(oracles) = Oracles::find() else { return };
    for name in oracles.supported() {
        check(architecture(&name), &oracles.read(&format!("{name}.gguf")));
    }
}

/// What is wrong with a file that was changed.
fn error(
    bytes: &[u8],
    keys: &[(&str, Option<Value<'_>>)],
    tensors: &[(&str, Option<&[u64]>)],
) -> Option<Error> {
    let bytes = edited(bytes, keys, tensors).expect("a well-formed file");
    unused_tensors(&Gguf::parse(&bytes).expect("a well-formed file")).err()
}

fn text(error: &Error) -> String {
    let source = std::error::Error::source(error).map_or(String::new(), ToString::to_string);
    format!("{error}: {source}")
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    for_each_file(|architecture, bytes| {
        let gguf = Gguf::parse(bytes).expect("an oracle");
        let unused = unused_tensors(&gguf).expect("a model that runs");
        for tensor in gguf.tensors().filter(|tensor| !unused.iter().any(|name| name == tensor.name())) {
            let mut shape = tensor.shape().to_vec();
            shape[0] += 32;
            let error = error(bytes, &[], &[(tensor.name(), Some(&shape))]);
            let message = error.as_ref().map_or(String::new(), text);
            assert!(message.contains(tensor.name()), "{architecture} {}: {message:?}", tensor.name());
        }
    });
}

#[test]
fn a_missing_tensor_is_named_or_was_optional() {
    for_each_file(|architecture, bytes| {
        let gguf = Gguf::parse(bytes).expect("an oracle");
        let unused = unused_tensors(&gguf).expect("a model that runs");
        let mut required = Vec::new();
        for tensor in gguf.tensors().filter(|tensor| !unused.iter().any(|name| name == tensor.name())) {
            match error(bytes, &[], &[(tensor.name(), None)]) {
                // Biases and factors are there or not; a head that is not is the embedding.
                None => assert!(is_optional(architecture, tensor.name()), "{architecture} {}", tensor.name()),
                Some(Error::MissingTensors { names }) => {
                    // In place of a merged tensor, its parts are missed.
                    let merged = ["attn_qkv.weight", "ffn_gate_up_exps.weight", "ssm_ba.weight"];
                    if !merged.iter().any(|end| tensor.name().ends_with(end)) {
                        assert!(names.iter().any(|name| name == tensor.name()), "{architecture}: {names:?}");
                        required.push(tensor.name());
                    }
                }
                Some(error) => panic!("{architecture} without {}: {}", tensor.name(), text(&error)),
            }
        }
        let several: Vec<_> = required.iter().rev().take(3).map(|name| (*name, None)).collect();
        let Some(Error::MissingTensors { names }) = error(bytes, &[], &several) else {
            panic!("{architecture}")
        };
        assert!(several.iter().all(|(name, _)| names.iter().any(|missing| missing == name)), "{names:?}");
    });
}

/// Whether a model runs without a tensor: differently, as a file without it was meant to.
fn is_optional(architecture: &str, name: &str) -> bool {
    let anywhere = [
        ".bias",
        "rope_freqs.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        "attn_norm_2.weight",
    ];
    let of_some = match architecture {
        "command-r" | "glm4moe" => &["attn_q_norm.weight"][..],
        "stablelm" => &["attn_q_norm.weight", "ffn_norm.weight", "attn_k_norm.weight"],
        "mpt" => &["position_embd.weight", "ffn.act.scales"],
        "qwen3next" => &["attn_qkv.weight"],
        _ => &[],
    };
    name == "output.weight" || anywhere.iter().chain(of_some).any(|end| name.ends_with(end))
}

#[test]
fn metadata_out_of_range_is_named() {
    let cases: &[(&str, Value<'static>)] = &[
        ("block_count", 0_u32.into()),
        ("embedding_length", 0_u32.into()),
        ("embedding_length", u64::MAX.into()),
        ("context_length", 0_u32.into()),
        ("feed_forward_length", 0_u32.into()),
        ("attention.head_count", 0_u32.into()),
        ("attention.head_count", 3_u32.into()),
        ("attention.head_count_kv", 3_u32.into()),
        ("attention.layer_norm_epsilon", f32::NAN.into()),
        ("attention.layer_norm_rms_epsilon", (-1.0_f32).into()),
        ("attention.sliding_window", (-1_i32).into()),
        ("rope.freq_base", 0.0_f32.into()),
        ("rope.dimension_count", 7_u32.into()),
        ("expert_count", 0_u32.into()),
        ("expert_used_count", 0_u32.into()),
        ("expert_used_count", 5_u32.into()),
        ("expert_feed_forward_length", 0_u32.into()),
        ("ssm.time_step_rank", 0_u32.into()),
        ("ssm.time_step_rank", 3_u32.into()),
        ("ssm.group_count", 0_u32.into()),
        ("ssm.conv_kernel", 0_u32.into()),
        ("ssm.state_size", 0_u32.into()),
        ("shortconv.l_cache", 0_u32.into()),
        ("attention.kv_lora_rank", 0_u32.into()),
        ("attention.key_length_mla", 64_u32.into()),
    ];
    for_each_file(|architecture, bytes| {
        let metadata = Gguf::parse(bytes).expect("an oracle");
        let mut n_errors = 0;
        for (key, value) in cases {
            let full = format!("{architecture}.{key}");
            if metadata.metadata().get(&full).is_none() {
                continue;
            }
            let error = error(bytes, &[(&full, Some(*value))], &[]);
            let Some(error) = error else {
                assert!(is_ignored(architecture, key), "{full} = {value:?} is not an error");
                continue;
            };
            n_errors += 1;
            let message = text(&error);
            // A number that some model could have makes other shapes, or asks for other tensors.
            let other = matches!(error, Error::TensorShape { .. } | Error::MissingTensors { .. });
            let named = message.contains(&full) || message.contains("must divide");
            assert!(named || other, "{full} = {value:?}: {message}");
        }
        assert!(n_errors >= 8, "{architecture}: {n_errors} errors");
    });
}

/// As many tokens as the file lists, or, without a list, as it says, must be as many as the embedding has rows.
#[test]
fn another_number_of_tokens_than_the_embeddings_is_an_error() {
    for_each_file(|architecture, bytes| {
        let key = format!("{architecture}.vocab_size");
        let list = ArrayBuf::new(ValueType::String, ["a"; 127]).expect("strings");
        let tokens = "tokenizer.ggml.tokens";
        for keys in [
            &[(tokens, Some(Value::Array(list.as_array())))][..],
            &[(tokens, None), (key.as_str(), Some(127_u32.into()))],
        ] {
            let error = error(bytes, keys, &[]);
            let expected = matches!(error, Some(Error::Vocabulary { n_tokens: 127, n_rows: 128, .. }));
            assert!(expected, "{architecture}: {error:?}");
        }
    });
}

/// Whether an architecture has no use for a key that its oracle has.
fn is_ignored(architecture: &str, key: &str) -> bool {
    let no_attention = ["attention.head_count", "attention.head_count_kv", "feed_forward_length"];
    match architecture {
        "bloom" | "gpt2" | "mpt" => key.starts_with("rope."),
        "mamba2" => key.starts_with("rope.") || no_attention.contains(&key),
        _ => false,
    }
}
