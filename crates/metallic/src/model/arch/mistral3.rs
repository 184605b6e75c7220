//! Ministral 3 and kin: Llama's layers, stretched by YaRN, with queries that grow in long contexts.

use super::{Keys, llama};
use crate::error::Result;
use crate::model::config::{ModelConfig, Temperature};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = llama::config(keys)?;
    let scale: f32 = keys.optional("attention.temperature_scale")?.unwrap_or(0.0);
    let multiplier: f32 = keys.optional("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    let length = keys.optional("attention.temperature_length")?.unwrap_or(config.original_context);
    for attention in config.attentions_mut() {
        if scale != 0.0 {
            attention.temperature = Some(Temperature { scale, length });
        }
        // YaRN's factor on queries and keys is the quotient of two, of which this is the second (mscale_all_dim).
        if let Some(rope) = attention.rope.as_mut().filter(|rope| rope.yarn.is_some()) {
            rope.attn_factor /= 1.0 - 0.1 * multiplier * rope.freq_scale.ln();
        }
    }
    Ok(config)
}
