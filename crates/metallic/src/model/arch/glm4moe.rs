//! GLM-4.5 and 4.6: experts chosen by biased sigmoids, one shared, after a few dense layers; norms of query and key heads in the
//! larger models.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, QkNorm, RopePairs, Scoring, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::Silu)?;
    keys.set_experts(&mut config, &keys.experts_and_shared(Scoring::Sigmoid)?)?;
    let qk_norm = keys.has_tensor("blk.0.attn_q_norm.weight").then_some(QkNorm::EachHead);
    for layer in &mut config.layers {
        layer.wiring = Wiring::Sequential { ffn_norm: "post_attention_norm" };
        if let Some(attention) = layer.mixer.attention_mut() {
            attention.qk_norm = qk_norm;
        }
    }
    Ok(config)
}
