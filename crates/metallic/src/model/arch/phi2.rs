//! Phi-1, 1.5 and 2: layer norms, and parallel parts that share one.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    let mut config = keys.transformer(NormKind::Layer, pairs, Activation::GeluTanh, Gate::None)?;
    for layer in &mut config.layers {
        layer.wiring = Wiring::Parallel { own_norms: false };
    }
    Ok(config)
}
