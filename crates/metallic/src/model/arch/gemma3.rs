//! Gemma 3: norms before and after each part, scaled embeddings, five windowed layers to each full one.
//!
//! Windowed layers keep the short rotation base of Gemma 2 and are not stretched; full layers use the
//! file's base and scaling (arXiv 2503.19786, section 2). The checkpoint's norms hold `w`, the files `1 + w`.

use super::keys::unstretched;
use super::{Keys, gemma};
use crate::error::Result;
use crate::model::config::{ModelConfig, QkNorm};

/// Every sixth layer sees the whole context.
const PATTERN: usize = 6;
/// Rotation base of windowed layers.
const LOCAL_FREQ_BASE: f32 = 10_000.0;
/// Only the 27B model has this many layers; its scores are scaled by the hidden width per head.
const LAYERS_OF_27B: usize = 62;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = gemma::config(keys)?;
    let n_layers = config.layers.len();
    let window = keys.window()?;
    let windowed = keys.window_pattern(n_layers, PATTERN)?;
    let scale = keys.optional("attention.scale")?;
    for (layer, windowed) in config.layers.iter_mut().zip(windowed) {
        layer.post_norms = true;
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        attention.qk_norm = Some(QkNorm::EachHead);
        if let Some(scale) = scale {
            attention.scale = scale;
        } else if n_layers == LAYERS_OF_27B {
            attention.scale = 1.0 / ((config.n_embd / attention.n_head) as f32).sqrt();
        }
        if let Some(window) = window.filter(|_| windowed) {
            if let Some(rope) = &mut attention.rope {
                unstretched(rope);
                rope.freq_base = LOCAL_FREQ_BASE;
            }
            keys.set_window(attention, window)?;
        }
    }
    config.logit_softcap = keys.optional("final_logit_softcapping")?;
    Ok(config)
}
