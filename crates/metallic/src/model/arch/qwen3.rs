//! Qwen 3: no biases, and a norm on every query and key head.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs};

pub(super) fn config(keys: &Keys<'_>) -> Result<ModelConfig> {
    keys.decoder(RopePairs::Halves, Activation::Silu)
}
