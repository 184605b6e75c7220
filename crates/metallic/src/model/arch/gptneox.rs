//! GPT-NeoX, Pythia and kin: layer norms, and in most models parallel parts with a norm each.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    let mut config = keys.transformer(NormKind::Layer, pairs, Activation::GeluErf, Gate::None)?;
    if keys.optional("use_parallel_residual")?.unwrap_or(true) {
        for layer in &mut config.layers {
            layer.wiring = Wiring::Parallel { own_norms: true };
        }
    }
    Ok(config)
}
