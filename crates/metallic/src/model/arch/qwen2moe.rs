//! Qwen 1.5 and 2's mixtures of experts: shares of a softmax over all, and a shared expert with a gate.

use super::{Keys, qwen2};
use crate::error::Result;
use crate::model::config::{ModelConfig, SharedExpert};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = qwen2::config(keys)?;
    let mut experts = keys.required_experts()?;
    experts.normalize = false;
    let n_ff = keys.optional_width("expert_shared_feed_forward_length")?;
    let n_ff = n_ff.map_or_else(|| keys.width("feed_forward_length"), Ok)?;
    experts.shared = Some(SharedExpert { n_ff, gated: true });
    keys.set_experts(&mut config, &experts)?;
    Ok(config)
}
