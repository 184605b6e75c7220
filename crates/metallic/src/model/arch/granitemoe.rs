//! Granite's mixtures of experts, some with one that is shared.

use super::{Keys, granite};
use crate::error::Result;
use crate::model::config::{ModelConfig, SharedExpert};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = granite::config(keys)?;
    let mut experts = keys.required_experts()?;
    let n_ff = keys.optional("expert_shared_feed_forward_length")?.filter(|n_ff| *n_ff > 0);
    experts.shared = n_ff.map(|n_ff| SharedExpert { n_ff, gated: false });
    keys.set_experts(&mut config, &experts)?;
    Ok(config)
}
