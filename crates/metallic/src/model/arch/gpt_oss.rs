//! gpt-oss: scores that belong to no position, experts with biases and a clamped gate, every other layer windowed.
//!
//! The publisher's YaRN takes the range of turns between `beta_slow` and `beta_fast` as it comes (`truncate: false`); files
//! do not say so, and here, as in the engines that they are made for, it begins and ends at whole pairs: at 8 and 18
//! instead of 8.1 and 17.4 of 32.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs, Scoring, Wiring};

/// Every second layer sees the whole context.
const PATTERN: usize = 2;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::ClampedSwish)?;
    let mut experts = keys.required_experts()?;
    experts.scoring = Scoring::SoftmaxOfUsed;
    keys.set_experts(&mut config, &experts)?;
    let window = keys.required("attention.sliding_window")?;
    let windowed = keys.window_pattern(config.layers.len(), PATTERN)?;
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        layer.wiring = Wiring::Sequential { ffn_norm: "post_attention_norm" };
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        attention.sinks = true;
        if windowed {
            keys.set_window(attention, window)?;
        }
    }
    Ok(config)
}
