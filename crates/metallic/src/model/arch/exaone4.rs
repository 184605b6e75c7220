//! EXAONE 4: norms after each part instead of before, and of every query and key head. The 32B model has three windowed layers
//! to each full one, which has no rotary positions; smaller ones have none of this.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, QkNorm, RopePairs, Wiring};

/// Every fourth layer of a model with windows sees the whole context.
const PATTERN: usize = 4;
/// Only the 32B model has this many layers; early files of it don't say which have windows.
const LAYERS_OF_32B: usize = 64;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::Silu)?;
    let n_layers = config.layers.len();
    let hybrid = n_layers == LAYERS_OF_32B || keys.has("attention.sliding_window_pattern");
    let window = keys.window()?.filter(|_| hybrid);
    let windowed = keys.window_pattern(n_layers, PATTERN)?;
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        layer.wiring = Wiring::Unnormed;
        layer.post_norms = true;
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        attention.qk_norm = Some(QkNorm::EachHead);
        match window {
            Some(window) if windowed => keys.set_window(attention, window)?,
            Some(_) => attention.rope = None,
            None => {}
        }
    }
    Ok(config)
}
