//! Qwen 3: no biases, and a norm on every query and key head.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, QkNorm, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::Silu)?;
    for attention in config.attentions_mut() {
        attention.qk_norm = Some(QkNorm::EachHead);
    }
    Ok(config)
}
