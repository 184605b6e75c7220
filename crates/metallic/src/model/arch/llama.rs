//! Llama 1–3, Mistral, SmolLM2, TinyLlama, Mixtral and kin.
//!
//! Q and K are stored permuted so that rotated pairs are adjacent; Llama 3.1 adds `rope_freqs.weight`.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Adjacent, Activation::Silu)?;
    if let Some(experts) = keys.experts()? {
        keys.set_experts(&mut config, &experts)?;
    }
    Ok(config)
}
