//! What a file has and no code uses: keys that nobody reads, tensors that nobody asks for.
//!
//! A file that says more than is read may mean another model than the one that runs. So what is left over is told as a
//! warning, unless it is known to change no logits; a bias or a scale of a weight that is used is an error. The code that
//! reads keys notes which, and so does the list of weights: nothing here lists what is used.

use metallic_gguf::{FromValue, Gguf, Value};

use super::arch;
use super::census::{Census, of_layers};
use super::config::ModelConfig;
use super::part::Parts;
use crate::error::{Error, Result, listed};

/// Keys, or groups of them ending in `.` or `_`, that change no logits of a text: those of encoders of images and sound,
/// of pooling and classifying, how the original was laid out, and what tensors or other keys say as well.
const KEYS: &[&str] = &[
    "attention.group_norm_",
    "attention.layer_norm_",
    "attention.recurrent_layers",
    "audio.",
    "classifier.",
    "deepstack_mapping",
    "full_attention_interval",
    "mm.",
    "n_deepstack_layers",
    "pooling_type",
    "rope.dimension_sections",
    "rope.scale_linear",
    "rope.scaling.finetuned",
    "tensor_data_layout",
    "use_parallel_residual",
    "vision.",
    "vocab_size",
];

/// The same of tensors: those of such encoders, and of classifiers.
const TENSORS: &[&str] = &["a.", "cls.", "mm.", "v."];

/// Names of tensors that no code uses, in a file of a model that runs.
///
/// # Errors
/// As [`GgufLoader::plan`](crate::GgufLoader::plan), as far as it is about the file.
pub fn unused_tensors(gguf: &Gguf<'_>) -> Result<Vec<String>> {
    let config = arch::read_config(gguf)?;
    let census = Census::of(gguf, &config, &Parts::all(config.layers.len()))?;
    Ok(census.unused(gguf).map(str::to_owned).collect())
}

/// Keys of a model's architecture that its file has and no code reads, though they may change what it computes.
///
/// # Errors
/// As [`read_config`](super::read_config).
pub fn unread_keys(gguf: &Gguf<'_>) -> Result<Vec<String>> {
    let (config, unread) = arch::read(gguf)?;
    let unread = unread.into_iter().filter(|(key, value)| !key_changes_nothing(key, *value, &config));
    Ok(unread.map(|(key, _)| format!("{}.{key}", config.architecture)).collect())
}

/// Warns of what may make this another model than the file means.
///
/// # Errors
/// As [`unused_tensors`].
pub(crate) fn warn(gguf: &Gguf<'_>) -> Result<()> {
    let (config, _) = arch::read(gguf)?;
    let keys = unread_keys(gguf)?;
    if !keys.is_empty() {
        let keys = listed(&keys);
        tracing::warn!(
            "the file has keys that may change what the model computes, and no code reads: {keys}"
        );
    }
    let unused = unused_tensors(gguf)?;
    let unused = unused.iter().map(String::as_str).filter(|name| !tensor_changes_nothing(name, &config));
    let unused = of_layers(unused);
    if !unused.is_empty() {
        tracing::warn!("the file has tensors that no code uses: {}", listed(&unused));
    }
    Ok(())
}

/// A bias or a scale of a weight that is used, if a file has one that is not.
///
/// # Errors
/// That one.
pub(super) fn refuse_parts(census: &Census<'_>, gguf: &Gguf<'_>) -> Result<()> {
    for name in census.unused(gguf) {
        let weight =
            [".bias", ".scale"].iter().find_map(|end| Some(format!("{}.weight", name.strip_suffix(end)?)));
        if let Some(weight) = weight.filter(|weight| census.uses(weight)) {
            return Err(Error::UnusedPart { name: name.to_owned(), weight });
        }
    }
    Ok(())
}

/// Whether an unread key can be left unread in this model, whatever its value or because of it.
fn key_changes_nothing(key: &str, value: Value<'_>, config: &ModelConfig) -> bool {
    let mut attention = config.layers.iter().filter_map(|layer| layer.mixer.attention());
    let mut ropes = attention.clone().filter_map(|attention| attention.rope.as_ref());
    let mut experts = config.layers.iter().filter_map(|layer| layer.ffn.as_ref()?.experts.as_ref());
    let of_what_is_not = match key.split('.').next() {
        _ if key.starts_with("rope.scaling.yarn_") => ropes.all(|rope| rope.yarn.is_none()),
        Some("rope") => ropes.next().is_none(),
        Some("attention") => attention.next().is_none(),
        Some("feed_forward_length") => config.layers.iter().all(|layer| layer.ffn.is_none()),
        _ if key.starts_with("expert_") && key != "expert_count" || key == "leading_dense_block_count" => {
            experts.next().is_none()
        }
        _ => false,
    };
    of_what_is_not || stands_for_nothing(key, value) || starts_as(KEYS, key)
}

/// 0 stands for "none" in files, and a factor of 1 is one.
fn stands_for_nothing(key: &str, value: Value<'_>) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::F32(number) => number == 0.0 || number == 1.0 && key.ends_with("_scale"),
        number => i64::from_value(key, number) == Ok(0),
    }
}

/// Whether an unused tensor changes no logits. Layers after the last are those that guess further tokens.
fn tensor_changes_nothing(name: &str, config: &ModelConfig) -> bool {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse::<usize>().ok());
    layer.is_some_and(|layer| layer >= config.layers.len()) || starts_as(TENSORS, name)
}

fn starts_as(list: &[&str], name: &str) -> bool {
    list.iter().any(|known| name == *known || known.ends_with(['.', '_']) && name.starts_with(known))
}
