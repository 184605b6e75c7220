//! Nemotron and Minitron: layer norms, and squared ReLUs. The checkpoint's norms hold `w`, the files `1 + w`.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = Some(RopePairs::Halves);
    keys.transformer(NormKind::Layer, pairs, Activation::ReluSquared, Gate::None)
}
