//! What configurations must hold to, whatever the architecture.

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;

/// What every forward pass relies on, whatever the architecture.
pub(crate) fn validate(config: &ModelConfig) -> Result<()> {
    let positive = |key: &str, value: f32| {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        let key = format!("{}.{key}", config.architecture);
        Err(Error::Config { key, value: value.to_string(), rule: "it must be a positive number" })
    };
    positive("embedding_scale", config.embedding_scale)?;
    positive("logit_scale", config.logit_scale)?;
    for layer in &config.layers {
        positive("residual_scale", layer.residual_scale)?;
        let Some(attention) = layer.mixer.attention() else { continue };
        positive("attention.scale", attention.scale)?;
        if let Some(rope) = &attention.rope {
            positive("rope.freq_base", rope.freq_base)?;
            positive("rope.scaling.attn_factor", rope.attn_factor)?;
        }
        for (key, cap) in [
            ("attn_logit_softcapping", attention.softcap),
            ("attention.clamp_kqv", attention.clamp),
            ("attention.max_alibi_bias", attention.alibi),
        ] {
            cap.map_or(Ok(()), |cap| positive(key, cap))?;
        }
        if let Some(temperature) = attention.temperature {
            positive("attention.temperature_scale", temperature.scale)?;
        }
    }
    config.logit_softcap.map_or(Ok(()), |cap| positive("final_logit_softcapping", cap))
}
