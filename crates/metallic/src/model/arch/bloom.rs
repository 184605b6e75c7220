//! BLOOM: layer norms, embeddings that are normed, and linear biases in place of positions.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind};

/// The published slopes: down to 2⁻⁸. Few files say so.
const ALIBI: f32 = 8.0;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.transformer(NormKind::Layer, None, Activation::GeluTanh, Gate::None)?;
    config.embedding_norm = true;
    let alibi = keys.optional("attention.max_alibi_bias")?.unwrap_or(ALIBI);
    for attention in config.attentions_mut() {
        attention.alibi = Some(alibi);
    }
    Ok(config)
}
