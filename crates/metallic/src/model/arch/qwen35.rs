//! Qwen 3.5: three layers with a gated delta net to each with attention, whose output is gated.
//!
//! Positions have sections for what models see; for text these are the same.

use super::keys::{Keys, StateHeads};
use crate::backend::DeltaNetShape;
use crate::error::Result;
use crate::model::config::{
    Activation, DeltaNetConfig, Gate, KeyHeads, LayerConfig, MixerConfig, ModelConfig, NormKind, QkNorm,
    RopePairs, Wiring,
};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    // Value heads were sorted so that each key head serves every n-th.
    hybrid(keys, KeyHeads::InTurn)
}

/// Delta nets and attention in turn.
pub(super) fn hybrid(keys: &Keys<'_, '_>, key_heads: KeyHeads) -> Result<ModelConfig> {
    let heads = keys.heads()?;
    let recurrent = keys.recurrent_layers(keys.n_layers()?)?;
    let delta_net = delta_net(keys, key_heads)?;
    keys.model(NormKind::Rms, |i| {
        let mixer = if recurrent[i] {
            MixerConfig::DeltaNet(delta_net)
        } else {
            let mut attention = keys.attention(&heads, i, Some(RopePairs::Halves))?;
            attention.qk_norm = Some(QkNorm::EachHead);
            attention.output_gate = true;
            MixerConfig::Attention(attention)
        };
        let layer = LayerConfig::new(mixer, Some(keys.network(i, Activation::Silu, Gate::Own)?));
        Ok(LayerConfig { wiring: Wiring::Sequential { ffn_norm: "post_attention_norm" }, ..layer })
    })
}

fn delta_net(keys: &Keys<'_, '_>, key_heads: KeyHeads) -> Result<DeltaNetConfig> {
    let StateHeads { n_head, head_dim, n_group } = keys.state_heads()?;
    let key_dim = keys.width("ssm.state_size")?;
    let shape =
        DeltaNetShape { n_key_head: n_group, n_value_head: n_head, key_dim, value_dim: head_dim, key_heads };
    Ok(DeltaNetConfig { shape, conv_length: keys.width("ssm.conv_kernel")? })
}
