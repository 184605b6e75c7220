//! Gemma 2: norms after each part as well, soft caps on scores and logits, every other layer windowed.
//!
//! The defaults are those of the published configurations (arXiv 2408.00118, table 1).

use super::{Keys, gemma};
use crate::error::Result;
use crate::model::config::ModelConfig;

/// Every second layer sees the whole context.
const PATTERN: usize = 2;
const WINDOW: usize = 4096;
const SCORE_CAP: f32 = 50.0;
const LOGIT_CAP: f32 = 30.0;
/// Only the 27B model has this many layers; its scores are scaled by the hidden width per head.
const LAYERS_OF_27B: usize = 46;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = gemma::config(keys)?;
    let n_layers = config.layers.len();
    let window = keys.window()?.unwrap_or(WINDOW);
    let windowed = keys.window_pattern(n_layers, PATTERN)?;
    let softcap = keys.optional("attn_logit_softcapping")?.unwrap_or(SCORE_CAP);
    let scale = keys.optional("attention.scale")?;
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        layer.post_norms = true;
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        attention.softcap = Some(softcap);
        if windowed {
            keys.set_window(attention, window)?;
        }
        if let Some(scale) = scale {
            attention.scale = scale;
        } else if n_layers == LAYERS_OF_27B {
            attention.scale = 1.0 / ((config.n_embd / attention.n_head) as f32).sqrt();
        }
    }
    config.logit_softcap = Some(keys.optional("final_logit_softcapping")?.unwrap_or(LOGIT_CAP));
    Ok(config)
}
