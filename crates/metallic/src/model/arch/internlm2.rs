//! InternLM 2 and 2.5: Llama's layers.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    keys.decoder(RopePairs::Adjacent, Activation::Silu)
}
