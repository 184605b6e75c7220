//! Qwen 3's mixtures of experts: its attention, with experts in place of the network.

use super::{Keys, qwen3};
use crate::error::Result;
use crate::model::config::ModelConfig;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = qwen3::config(keys)?;
    keys.set_experts(&mut config, &keys.required_experts()?)?;
    Ok(config)
}
