//! OLMo 2 and 3: norms after each part instead of before, and over all query heads and all key heads. OLMo 3 has three windowed
//! layers, which are not stretched, to each full one.

use super::Keys;
use super::keys::unstretched;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, QkNorm, RopePairs, Wiring};

/// Every fourth layer of a model with windows sees the whole context.
const PATTERN: usize = 4;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::Silu)?;
    let window = keys.window()?;
    let windowed = keys.window_pattern(config.layers.len(), PATTERN)?;
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        layer.wiring = Wiring::Unnormed;
        layer.post_norms = true;
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        attention.qk_norm = Some(QkNorm::AllHeads);
        if let Some(window) = window.filter(|_| windowed) {
            keys.set_window(attention, window)?;
            attention.rope.iter_mut().for_each(unstretched);
        }
    }
    Ok(config)
}
