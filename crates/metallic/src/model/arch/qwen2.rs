//! Qwen 1.5, 2 and 2.5: Llama's layers with biases on Q, K and V, and half-split rotation.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    keys.decoder(RopePairs::Halves, Activation::Silu)
}
