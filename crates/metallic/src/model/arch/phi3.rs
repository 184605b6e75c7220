//! Phi-3 and 4: Llama's layers with gates merged with inner layers, in some models windows, and frequency factors for short and
//! for long contexts.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    let mut config = keys.transformer(NormKind::Rms, pairs, Activation::Silu, Gate::Merged)?;
    let window = keys.window()?;
    for attention in config.attentions_mut() {
        attention.window = window;
    }
    Ok(config)
}
