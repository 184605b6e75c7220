//! GLM-4: norms after each part as well, and gates merged with inner layers. In models that see, rotary positions have sections,
//! which are the same for text; their files have the rotated halves apart.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, Gate, ModelConfig, NormKind, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let pairs = if keys.has("rope.dimension_sections") { RopePairs::Halves } else { RopePairs::Adjacent };
    let mut config = keys.transformer(NormKind::Rms, Some(pairs), Activation::Silu, Gate::Merged)?;
    for layer in &mut config.layers {
        layer.post_norms = true;
    }
    Ok(config)
}
