//! One file an architecture: metadata → [`ModelConfig`].
//!
//! An architecture says what is particular to it and reads only its own keys; what most share is in [`keys`]. Biases
//! are not listed: a tensor's presence is the flag. Norms, gates and whatever else changes what is computed are, so that
//! a file that lacks their tensors is an error.

mod bloom;
mod cohere2;
mod command_r;
mod deepseek2;
mod exaone4;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod glm4;
mod glm4moe;
mod gpt2;
mod gpt_oss;
mod gptneox;
mod granite;
mod internlm2;
mod keys;
mod lfm2;
mod llama;
mod mamba2;
mod minimax_m2;
mod mistral3;
mod mpt;
mod nemotron;
mod olmo2;
mod olmoe;
mod phi2;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen35;
mod qwen3moe;
mod qwen3next;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use keys::Keys;
use metallic_gguf::{Gguf, Value};

use super::config::ModelConfig;
use crate::error::{Error, Nearest, Result};

/// Keys without the architecture's name, and their values.
pub(super) type Unread<'a> = Vec<(&'a str, Value<'a>)>;

type Read = fn(&Keys<'_, '_>) -> Result<ModelConfig>;

const ARCHITECTURES: &[(&str, Read)] = &[
    ("bloom", bloom::config),
    ("cohere2", cohere2::config),
    ("command-r", command_r::config),
    ("deepseek2", deepseek2::config),
    ("exaone4", exaone4::config),
    ("falcon", falcon::config),
    ("gemma", gemma::config),
    ("gemma2", gemma2::config),
    ("gemma3", gemma3::config),
    ("glm4", glm4::config),
    ("glm4moe", glm4moe::config),
    ("gpt-oss", gpt_oss::config),
    ("gpt2", gpt2::config),
    ("gptneox", gptneox::config),
    ("granite", granite::config),
    ("granitemoe", granite::config),
    ("internlm2", internlm2::config),
    ("lfm2", lfm2::config),
    ("llama", llama::config),
    ("mamba2", mamba2::config),
    ("minimax-m2", minimax_m2::config),
    ("mistral3", mistral3::config),
    ("mpt", mpt::config),
    ("nemotron", nemotron::config),
    ("olmo2", olmo2::config),
    ("olmoe", olmoe::config),
    ("phi2", phi2::config),
    ("phi3", phi3::config),
    ("phimoe", phimoe::config),
    ("qwen2", qwen2::config),
    ("qwen2moe", qwen2moe::config),
    ("qwen3", qwen3::config),
    ("qwen35", qwen35::config),
    ("qwen3moe", qwen3moe::config),
    ("qwen3next", qwen3next::config),
    ("seed_oss", seed_oss::config),
    ("smollm3", smollm3::config),
    ("stablelm", stablelm::config),
    ("starcoder2", starcoder2::config),
];

/// Names of the architectures that run, in alphabetical order.
pub fn supported() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

/// Reads the hyper-parameters of a model.
///
/// # Errors
/// An unknown architecture, a missing key, or a value that no model can have.
pub fn read_config(gguf: &Gguf<'_>) -> Result<ModelConfig> {
    Ok(read(gguf)?.0)
}

/// The same, and the architecture's keys that no code has read.
pub(super) fn read<'a>(gguf: &'a Gguf<'_>) -> Result<(ModelConfig, Unread<'a>)> {
    let name: &'a str = gguf.metadata().required("general.architecture")?;
    if let Some((_, read)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) {
        return read_as(*read, gguf, name);
    }
    let read_as = |read: &Read| read_as(*read, gguf, name).map(|(config, _)| config);
    let table = ARCHITECTURES.iter().map(|(known, read)| (*known, read_as(read)));
    let nearest = Nearest::find(gguf, name, table).map(Box::new);
    Err(Error::UnsupportedArchitecture { name: name.to_owned(), nearest, supported: supported() })
}

fn read_as<'a>(read: Read, gguf: &'a Gguf<'_>, name: &'a str) -> Result<(ModelConfig, Unread<'a>)> {
    let keys = Keys::new(gguf, name)?;
    let config = read(&keys)?;
    keys::validate(&config)?;
    Ok((config, keys.unread()))
}
