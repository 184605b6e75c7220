//! MPT: layer norms, mostly without biases, and linear biases in place of positions; some models have vectors of positions,
//! clamped queries, keys and values, or norms of them.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, QkNorm};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.transformer(NormKind::Layer, None, Activation::GeluErf, Gate::None)?;
    config.learned_positions = keys.has_tensor("position_embd.weight");
    let alibi = keys.optional("attention.max_alibi_bias")?.filter(|bias| *bias > 0.0);
    let clamp = keys.optional("attention.clamp_kqv")?.filter(|limit| *limit != 0.0);
    let qk_norm = keys.has_tensor("blk.0.attn_q_norm.weight").then_some(QkNorm::AllHeads);
    for attention in config.attentions_mut() {
        (attention.alibi, attention.clamp, attention.qk_norm) = (alibi, clamp, qk_norm);
    }
    Ok(config)
}
