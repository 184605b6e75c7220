//! OLMoE: experts whose shares are those of a softmax over all, and norms over all query heads and all key heads.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, QkNorm, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::Silu)?;
    let mut experts = keys.required_experts()?;
    experts.normalize = false;
    keys.set_experts(&mut config, &experts)?;
    for attention in config.attentions_mut() {
        attention.qk_norm = Some(QkNorm::AllHeads);
    }
    Ok(config)
}
