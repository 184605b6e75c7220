//! StarCoder 2: layer norms, and biases everywhere.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    keys.transformer(NormKind::Layer, pairs, Activation::GeluTanh, Gate::None)
}
