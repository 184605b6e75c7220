//! Falcon 7B and 40B: parallel parts, which share a norm in the 7B model and have one each in the 40B.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    let mut config = keys.transformer(NormKind::Layer, pairs, Activation::GeluErf, Gate::None)?;
    for layer in &mut config.layers {
        layer.wiring = Wiring::Parallel { own_norms: false };
    }
    Ok(config)
}
