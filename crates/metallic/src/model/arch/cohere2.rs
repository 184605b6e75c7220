//! Command R7B and Command A: three windowed layers with rotary positions to each full one without any.

use super::{Keys, command_r};
use crate::error::Result;
use crate::model::config::ModelConfig;

/// Every fourth layer sees the whole context.
const PATTERN: usize = 4;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = command_r::config(keys)?;
    let window = keys.required("attention.sliding_window")?;
    let windowed = keys.window_pattern(config.layers.len(), PATTERN)?;
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        if windowed {
            keys.set_window(attention, window)?;
        } else {
            attention.rope = None;
        }
    }
    Ok(config)
}
