//! SmolLM3: Llama's layers, every fourth without positions.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs};

/// Every fourth layer knows no positions.
const PATTERN: usize = 4;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Adjacent, Activation::Silu)?;
    for layer in config.layers.iter_mut().skip(PATTERN - 1).step_by(PATTERN) {
        if let Some(attention) = layer.mixer.attention_mut() {
            attention.rope = None;
        }
    }
    Ok(config)
}
