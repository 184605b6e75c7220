//! Seed-OSS: Llama's layers, with biases on Q, K and V.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::Silu)?;
    for layer in &mut config.layers {
        layer.wiring = Wiring::Sequential { ffn_norm: "post_attention_norm" };
    }
    Ok(config)
}
