//! Whole models.

use super::Keys;
use crate::error::Result;
use crate::model::config::{
    Activation, FfnConfig, Gate, LayerConfig, MixerConfig, ModelConfig, NormConfig, NormKind, RopePairs,
};

impl Keys<'_, '_> {
    /// A decoder-only transformer with RMS norms, grouped attention and a gated network: what most architectures start
    /// from.
    pub(crate) fn decoder(&self, pairs: RopePairs, activation: Activation) -> Result<ModelConfig> {
        self.transformer(NormKind::Rms, Some(pairs), activation, Gate::Own)
    }

    /// The same with other norms, without rotary positions, or with another network.
    pub(crate) fn transformer(
        &self,
        norm: NormKind,
        pairs: Option<RopePairs>,
        activation: Activation,
        gate: Gate,
    ) -> Result<ModelConfig> {
        let heads = self.heads()?;
        self.model(norm, |i| {
            let mixer = MixerConfig::Attention(self.attention(&heads, i, pairs)?);
            Ok(LayerConfig::new(mixer, Some(self.network(i, activation, gate)?)))
        })
    }

    /// A model of these layers.
    pub(crate) fn model(
        &self,
        norm: NormKind,
        layer: impl FnMut(usize) -> Result<LayerConfig>,
    ) -> Result<ModelConfig> {
        let eps = match norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        if self.optional("attention.causal")? == Some(false) {
            let rule = "here tokens see only those before them";
            return Err(self.invalid("attention.causal", false, rule));
        }
        let context_length = self.count("context_length")?;
        Ok(ModelConfig {
            architecture: self.architecture.to_owned(),
            context_length,
            original_context: self.original_context::<usize>()?,
            n_embd: self.width("embedding_length")?,
            n_vocab: self.n_vocab,
            norm: NormConfig { kind: norm, eps: self.epsilon(eps)? },
            embedding_scale: 1.0,
            embedding_norm: false,
            learned_positions: false,
            output_norm: "output_norm",
            logit_scale: 1.0,
            logit_softcap: None,
            layers: (0..self.n_layers()?).map(layer).collect::<Result<_>>()?,
        })
    }

    /// The feed-forward network of a layer.
    pub(crate) fn network(&self, layer: usize, activation: Activation, gate: Gate) -> Result<FfnConfig> {
        let key = "feed_forward_length";
        let lengths = self.per_layer(key)?;
        let lengths = lengths.ok_or_else(|| metallic_gguf::Error::MissingKey { key: self.full(key) })?;
        Ok(FfnConfig { n_ff: self.checked_width(key, lengths[layer])?, activation, gate, experts: None })
    }
}
