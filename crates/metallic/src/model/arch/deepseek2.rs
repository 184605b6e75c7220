//! DeepSeek V2, V3, R1 and kin: latent attention, a few dense layers, then experts of which one or two are shared.

use super::Keys;
use crate::error::Result;
use crate::model::config::{
    Activation, AttentionConfig, Gate, LatentConfig, LayerConfig, MixerConfig, ModelConfig, NormKind,
    RopePairs, Scoring,
};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let heads = keys.heads()?;
    let mut config = keys.model(NormKind::Rms, |i| {
        // What the file says of one key head is not what the queries are made for.
        let attention = keys.attention(&heads, i, None)?;
        let mixer = MixerConfig::Latent(latent(keys, attention)?);
        Ok(LayerConfig::new(mixer, Some(keys.network(i, Activation::Silu, Gate::Own)?)))
    })?;
    keys.set_experts(&mut config, &keys.experts_and_shared(Scoring::Softmax)?)?;
    Ok(config)
}

fn latent(keys: &Keys<'_, '_>, attention: AttentionConfig) -> Result<LatentConfig> {
    let rank = keys.width("attention.kv_lora_rank")?;
    let key_length = keys.width("attention.key_length_mla")?;
    let mut rope = keys.rope(RopePairs::Adjacent, keys.n_rot(key_length)?)?;
    let mut scale = 1.0 / (key_length as f32).sqrt();
    // YaRN's factor goes to the scores, and there to both parts of queries and keys (mscale_all_dim, of which files have
    // a tenth).
    let multiplier: f32 = keys.optional("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    if rope.yarn.is_some() && multiplier != 0.0 {
        let growth = -rope.freq_scale.ln();
        rope.attn_factor /= 1.0 + 0.1 * growth;
        scale *= (1.0 + multiplier * growth).powi(2);
    }
    let Some(nope_length) = key_length.checked_sub(rope.n_rot).filter(|n| *n > 0) else {
        let rule = "it must be longer than rope.dimension_count";
        return Err(keys.invalid("attention.key_length_mla", key_length, rule));
    };
    Ok(LatentConfig {
        nope_length,
        value_length: keys.width("attention.value_length_mla")?,
        query_rank: keys.optional_width("attention.q_lora_rank")?,
        attention: AttentionConfig {
            n_head_kv: 1,
            key_length: rope.n_rot + rank,
            value_length: rank,
            scale,
            rope: Some(rope),
            ..attention
        },
    })
}
