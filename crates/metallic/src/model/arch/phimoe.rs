//! Phi-3.5-MoE: Phi-3 with experts, and biases everywhere.
//!
//! The publisher weighs each of a token's two experts for itself, against those of nearly its score (SparseMixer). Here, as
//! in the engines that files are made for, the weights are those of all by softmax, scaled to sum to one.

use super::{Keys, phi3};
use crate::error::Result;
use crate::model::config::ModelConfig;

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = phi3::config(keys)?;
    keys.set_experts(&mut config, &keys.required_experts()?)?;
    Ok(config)
}
