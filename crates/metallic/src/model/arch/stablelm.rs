//! StableLM: layer norms; models without a second one have parallel parts, and some norm the heads of queries and keys.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, QkNorm, RopePairs, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    let mut config = keys.transformer(NormKind::Layer, pairs, Activation::Silu, Gate::Own)?;
    let sequential = keys.has_tensor("blk.0.ffn_norm.weight");
    let qk_norm = keys.has_tensor("blk.0.attn_q_norm.weight").then_some(QkNorm::EachHeadOwn);
    for layer in &mut config.layers {
        if !sequential {
            layer.wiring = Wiring::Parallel { own_norms: false };
        }
        if let Some(attention) = layer.mixer.attention_mut() {
            attention.qk_norm = qk_norm;
        }
    }
    Ok(config)
}
