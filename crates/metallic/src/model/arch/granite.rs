//! Granite 3 and 4: Llama's layers with factors on embeddings, scores, what layers add, and logits; in some models with
//! experts, of which one may be shared. Files call models with and without experts `granite` or `granitemoe`.

use super::Keys;
use crate::error::Result;
use crate::model::config::{Activation, ModelConfig, RopePairs, SharedExpert};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mut config = keys.decoder(RopePairs::Adjacent, Activation::Silu)?;
    config.embedding_scale = keys.factor("embedding_scale")?;
    // Logits are divided by what the file calls their scale.
    config.logit_scale = 1.0 / keys.factor("logit_scale")?;
    let residual_scale = keys.factor("residual_scale")?;
    let rotated = keys.optional("rope.scaling.finetuned")?.unwrap_or(true);
    let scale = keys.optional("attention.scale")?.filter(|scale| *scale != 0.0);
    for layer in &mut config.layers {
        layer.residual_scale = residual_scale;
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        attention.scale = scale.unwrap_or(attention.scale);
        attention.rope.take_if(|_| !rotated);
    }
    if let Some(mut experts) = keys.experts()? {
        let n_ff = keys.optional("expert_shared_feed_forward_length")?.filter(|n_ff| *n_ff > 0);
        experts.shared = n_ff.map(|n_ff| SharedExpert { n_ff, gated: false });
        keys.set_experts(&mut config, &experts)?;
    }
    Ok(config)
}
