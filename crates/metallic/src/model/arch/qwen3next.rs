//! Qwen 3 Next: Qwen 3.5's layers with experts, one of them shared, in place of the network.

use super::{Keys, qwen35};
use crate::error::Result;
use crate::model::config::{KeyHeads, ModelConfig, SharedExpert};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = qwen35::hybrid(keys, KeyHeads::Adjacent)?;
    let mut experts = keys.required_experts()?;
    let n_ff = keys.optional_width("expert_shared_feed_forward_length")?;
    experts.shared = n_ff.map(|n_ff| SharedExpert { n_ff, gated: true });
    keys.set_experts(&mut config, &experts)?;
    Ok(config)
}
