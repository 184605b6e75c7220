//! One file an architecture: metadata → [`ModelConfig`].
//!
//! An architecture says what is particular to it and reads only its own keys; what most share is in
//! [`Keys::decoder`]. Biases and extra norms are not listed: a tensor's presence is the flag.

mod gemma3;
mod llama;
mod qwen2;
mod qwen3;
mod qwen3moe;

use metallic_gguf::{FromValue, Gguf, Metadata, Value, ValueType};

use super::config::{
    Activation, AttentionConfig, ExpertsConfig, FfnConfig, LayerConfig, ModelConfig, RopeConfig, RopePairs,
    Yarn,
};
use crate::error::{Error, Result};

type Read = fn(&Keys<'_>) -> Result<ModelConfig>;

const ARCHITECTURES: &[(&str, Read)] = &[
    ("gemma3", gemma3::config),
    ("llama", llama::config),
    ("qwen2", qwen2::config),
    ("qwen3", qwen3::config),
    ("qwen3moe", qwen3moe::config),
];

/// Names of the architectures that run, in alphabetical order.
pub fn supported() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

/// The widest of anything in a model, far above every model's: products of two widths can't overflow.
const MAX_WIDTH: usize = 1 << 24;

/// Reads the hyper-parameters of a model.
///
/// # Errors
/// An unknown architecture, a missing key, or a value that no model can have.
pub fn read_config(gguf: &Gguf<'_>) -> Result<ModelConfig> {
    let metadata = gguf.metadata();
    let name: &str = metadata.required("general.architecture")?;
    let Some((_, read)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::UnsupportedArchitecture { name: name.to_owned(), supported: supported() });
    };
    let config = read(&Keys { metadata, architecture: name, n_vocab: n_vocab(gguf)? })?;
    validate(&config)?;
    Ok(config)
}

/// The vocabulary is as large as the embedding has rows, whatever a key may say.
fn n_vocab(gguf: &Gguf<'_>) -> Result<usize> {
    let name = "token_embd.weight";
    let tensor = gguf.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
    usize::try_from(tensor.n_rows()).map_err(|_| Error::TooLarge { what: "the token embedding" })
}

/// The metadata keys of one architecture: `block_count` stands for `llama.block_count`.
pub(super) struct Keys<'a> {
    metadata: Metadata<'a>,
    architecture: &'a str,
    n_vocab: usize,
}

impl<'a> Keys<'a> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn required<T: FromValue<'a>>(&self, key: &str) -> Result<T> {
        Ok(self.metadata.required(&self.full(key))?)
    }

    fn optional<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        Ok(self.metadata.optional(&self.full(key))?)
    }

    /// One value for each layer, from a scalar or an array.
    fn per_layer<T: FromValue<'a> + Clone>(&self, key: &str, n_layers: usize) -> Result<Option<Vec<T>>> {
        Ok(self.metadata.per_layer(&self.full(key), n_layers)?)
    }

    fn invalid(&self, key: &str, value: impl ToString, rule: &'static str) -> Error {
        Error::Config { key: self.full(key), value: value.to_string(), rule }
    }

    /// A count that must be at least one.
    fn count(&self, key: &str) -> Result<usize> {
        match self.required(key)? {
            0 => Err(self.invalid(key, 0, "it must be at least 1")),
            n => Ok(n),
        }
    }

    /// A count of values, heads or layers that some model could have.
    fn width(&self, key: &str, n: usize) -> Result<usize> {
        if (1..=MAX_WIDTH).contains(&n) {
            Ok(n)
        } else {
            Err(self.invalid(key, n, "it must be at least 1, and no model has more than 16777216"))
        }
    }

    /// A decoder-only transformer with RMS norms, grouped attention and a gated network: what most
    /// architectures start from.
    fn decoder(&self, pairs: RopePairs, activation: Activation) -> Result<ModelConfig> {
        let n_embd = self.width("embedding_length", self.required("embedding_length")?)?;
        let n_layers = self.count("block_count")?;
        let n_head = self
            .per_layer("attention.head_count", n_layers)?
            .ok_or_else(|| metallic_gguf::Error::MissingKey { key: self.full("attention.head_count") })?;
        let n_head_kv =
            self.per_layer("attention.head_count_kv", n_layers)?.unwrap_or_else(|| n_head.clone());
        let n_ff = self
            .per_layer("feed_forward_length", n_layers)?
            .ok_or_else(|| metallic_gguf::Error::MissingKey { key: self.full("feed_forward_length") })?;
        let layers = (0..n_layers)
            .map(|i| {
                Ok(LayerConfig {
                    attention: self.attention(n_embd, n_head[i], n_head_kv[i], pairs)?,
                    ffn: FfnConfig {
                        n_ff: self.width("feed_forward_length", n_ff[i])?,
                        activation,
                        experts: None,
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok(ModelConfig {
            architecture: self.architecture.to_owned(),
            context_length: self.count("context_length")?,
            n_embd,
            n_vocab: self.n_vocab,
            norm_eps: self.required("attention.layer_norm_rms_epsilon")?,
            embedding_scale: 1.0,
            logit_softcap: None,
            layers,
        })
    }

    fn attention(
        &self,
        n_embd: usize,
        n_head: usize,
        n_head_kv: usize,
        pairs: RopePairs,
    ) -> Result<AttentionConfig> {
        self.width("attention.head_count", n_head)?;
        self.width("attention.head_count_kv", n_head_kv)?;
        if !n_head.is_multiple_of(n_head_kv) {
            let rule = "it must divide attention.head_count";
            return Err(self.invalid("attention.head_count_kv", n_head_kv, rule));
        }
        let length = |key| self.width(key, self.optional(key)?.unwrap_or(n_embd / n_head));
        let (key_length, value_length) = (length("attention.key_length")?, length("attention.value_length")?);
        let n_rot = self.optional("rope.dimension_count")?.unwrap_or(key_length);
        if n_rot > key_length || !n_rot.is_multiple_of(2) {
            return Err(self.invalid(
                "rope.dimension_count",
                n_rot,
                "it must be even and no longer than a head",
            ));
        }
        Ok(AttentionConfig {
            n_head,
            n_head_kv,
            key_length,
            value_length,
            scale: 1.0 / (key_length as f32).sqrt(),
            window: None,
            softcap: None,
            rope: self.rope(pairs, n_rot)?,
        })
    }

    fn rope(&self, pairs: RopePairs, n_rot: usize) -> Result<RopeConfig> {
        let mut rope = RopeConfig {
            pairs,
            n_rot,
            freq_base: self.optional("rope.freq_base")?.unwrap_or(10_000.0),
            freq_scale: 1.0,
            attn_factor: self.optional("rope.scaling.attn_factor")?.unwrap_or(1.0),
            yarn: None,
        };
        let factor = match self.optional::<f32>("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.optional("rope.scale_linear")?.unwrap_or(0.0), // what files of 2023 call it
        };
        if !factor.is_finite() || factor < 0.0 {
            return Err(self.invalid("rope.scaling.factor", factor, "it must be a positive number"));
        }
        let kind: &str = self.optional("rope.scaling.type")?.unwrap_or("linear");
        if factor == 0.0 || kind == "none" {
            return Ok(rope); // 0 stands for "not scaled" in files
        }
        rope.freq_scale = 1.0 / factor;
        match kind {
            "linear" => {}
            "yarn" => {
                rope.yarn = Some(Yarn {
                    original_context: self.required("rope.scaling.original_context_length")?,
                    ext_factor: self.optional("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                    beta_fast: self.optional("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.optional("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                });
                if let Some(factor) = self.optional("rope.scaling.yarn_attn_factor")? {
                    rope.attn_factor = factor;
                }
            }
            other => {
                return Err(self.invalid("rope.scaling.type", other, "known are none, linear and yarn"));
            }
        }
        Ok(rope)
    }

    /// Which layers see only a window: `attention.sliding_window_pattern` has a flag for each layer, or `n`
    /// for "every `n`-th layer sees all"; `default` is such an `n`.
    fn window_pattern(&self, n_layers: usize, default: usize) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        let Some(Value::Array(flags)) = self.metadata.get(&self.full(key)) else {
            let n = self.optional(key)?.unwrap_or(default);
            return Ok((1..=n_layers).map(|layer| n == 0 || !layer.is_multiple_of(n)).collect());
        };
        match flags.element_type() {
            ValueType::Bool => Ok(self.per_layer(key, n_layers)?.unwrap_or_default()),
            _ => {
                let flags = self.per_layer::<u32>(key, n_layers)?.unwrap_or_default();
                Ok(flags.into_iter().map(|flag| flag != 0).collect())
            }
        }
    }

    /// The experts, where the file says that there are any.
    fn experts(&self) -> Result<Option<ExpertsConfig>> {
        let n_expert = self.optional("expert_count")?.unwrap_or(0);
        if n_expert == 0 {
            return Ok(None);
        }
        let n_used = self.count("expert_used_count")?;
        if n_used > n_expert {
            return Err(self.invalid("expert_used_count", n_used, "it can't exceed expert_count"));
        }
        Ok(Some(ExpertsConfig { n_expert, n_used }))
    }
}

/// What every forward pass relies on, whatever the architecture.
fn validate(config: &ModelConfig) -> Result<()> {
    let key = |key: &str| format!("{}.{key}", config.architecture);
    let finite =
        [("attention.layer_norm_rms_epsilon", config.norm_eps), ("embedding_scale", config.embedding_scale)];
    for (name, value) in finite {
        if !value.is_finite() || value < 0.0 {
            return Err(Error::Config {
                key: key(name),
                value: value.to_string(),
                rule: "it must be a positive number",
            });
        }
    }
    for layer in &config.layers {
        let rope = &layer.attention.rope;
        if !rope.freq_base.is_finite() || rope.freq_base <= 0.0 {
            return Err(Error::Config {
                key: key("rope.freq_base"),
                value: rope.freq_base.to_string(),
                rule: "it must be a positive number",
            });
        }
        if layer.attention.window == Some(0) {
            return Err(Error::Config {
                key: key("attention.sliding_window"),
                value: "0".to_owned(),
                rule: "it must be at least 1",
            });
        }
    }
    Ok(())
}
