//! LFM2: layers without key heads have a gated convolution over a few positions in place of attention.

use super::Keys;
use crate::error::Result;
use crate::model::config::{
    Activation, Gate, LayerConfig, MixerConfig, ModelConfig, NormKind, QkNorm, RopePairs, ShortConvConfig,
};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let heads = keys.heads()?;
    let window = keys.window()?;
    let conv = ShortConvConfig {
        n_channels: keys.width("embedding_length")?,
        length: keys.width("shortconv.l_cache")?,
    };
    let mut config = keys.model(NormKind::Rms, |i| {
        let mixer = if heads.n_head_kv(i) == 0 {
            MixerConfig::ShortConv(conv)
        } else {
            let mut attention = keys.attention(&heads, i, Some(RopePairs::Halves))?;
            attention.qk_norm = Some(QkNorm::EachHead);
            attention.window = window;
            MixerConfig::Attention(attention)
        };
        Ok(LayerConfig::new(mixer, Some(keys.network(i, Activation::Silu, Gate::Own)?)))
    })?;
    config.output_norm = "token_embd_norm";
    Ok(config)
}
