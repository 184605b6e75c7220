//! Gemma: scaled embeddings. The checkpoint's norms hold `w`, the files `1 + w`.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Halves, Activation::GeluTanh)?;
    config.embedding_scale = (config.n_embd as f32).sqrt();
    Ok(config)
}
