//! GPT-2: layer norms, and a vector for each position.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.transformer(NormKind::Layer, None, Activation::GeluTanh, Gate::None)?;
    config.learned_positions = true;
    Ok(config)
}
