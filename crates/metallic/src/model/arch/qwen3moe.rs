//! Qwen 3's mixtures of experts: its attention, with experts in place of the network.

use super::{Keys, qwen3};
use crate::error::Result;
use crate::model::config::ModelConfig;

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    let mut config = qwen3::config(keys)?;
    let experts = keys.experts()?;
    for layer in &mut config.layers {
        layer.ffn.n_ff =
            keys.width("expert_feed_forward_length", keys.required("expert_feed_forward_length")?)?;
        layer.ffn.experts = experts.clone();
    }
    Ok(config)
}
