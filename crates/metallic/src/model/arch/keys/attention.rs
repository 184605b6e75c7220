//! Attention: heads, and which positions they see.

use metallic_gguf::Value;

use super::Keys;
use crate::error::Result;
use crate::model::config::{AttentionConfig, RopePairs};

/// Query heads and key heads of each layer.
pub(crate) struct Heads {
    n_embd: usize,
    n_head: Vec<usize>,
    n_head_kv: Vec<usize>,
}

impl Heads {
    /// Key heads of a layer; 0 where it has no attention.
    pub(crate) fn n_head_kv(&self, layer: usize) -> usize {
        self.n_head_kv[layer]
    }
}

impl Keys<'_, '_> {
    /// Heads of all layers.
    pub(crate) fn heads(&self) -> Result<Heads> {
        let n_embd = self.width("embedding_length")?;
        let key = "attention.head_count";
        let n_head: Vec<usize> =
            self.per_layer(key)?.ok_or_else(|| metallic_gguf::Error::MissingKey { key: self.full(key) })?;
        let n_head_kv = self.per_layer("attention.head_count_kv")?.unwrap_or_else(|| n_head.clone());
        Ok(Heads { n_embd, n_head, n_head_kv })
    }

    /// The attention of a layer, with rotary positions where `pairs` says of which kind.
    pub(crate) fn attention(
        &self,
        heads: &Heads,
        layer: usize,
        pairs: Option<RopePairs>,
    ) -> Result<AttentionConfig> {
        let n_head = self.checked_width("attention.head_count", heads.n_head[layer])?;
        let n_head_kv = self.checked_width("attention.head_count_kv", heads.n_head_kv[layer])?;
        if !n_head.is_multiple_of(n_head_kv) {
            let rule = "it must divide attention.head_count";
            return Err(self.invalid("attention.head_count_kv", n_head_kv, rule));
        }
        let length = |key| self.checked_width(key, self.optional(key)?.unwrap_or(heads.n_embd / n_head));
        let (key_length, value_length) = (length("attention.key_length")?, length("attention.value_length")?);
        Ok(AttentionConfig {
            n_head,
            n_head_kv,
            key_length,
            value_length,
            scale: 1.0 / (key_length as f32).sqrt(),
            temperature: None,
            window: None,
            softcap: None,
            alibi: None,
            sinks: false,
            rope: pairs.map(|pairs| self.rope(pairs, self.n_rot(key_length)?)).transpose()?,
            qk_norm: None,
            clamp: None,
            output_gate: false,
        })
    }

    /// Which layers see only a window: `attention.sliding_window_pattern` has a flag for each layer, or `n`
    /// for "every `n`-th layer sees all"; `default` is such an `n`.
    pub(crate) fn window_pattern(&self, n_layers: usize, default: usize) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        let Some(Value::Array(flags)) = self.metadata.get(&self.full(key)) else {
            let n = self.optional(key)?.unwrap_or(default);
            return Ok((1..=n_layers).map(|layer| n == 0 || !layer.is_multiple_of(n)).collect());
        };
        self.flags(key, flags.element_type())
    }

    /// Makes a layer see only a window. Such layers may turn with a base of their own.
    pub(crate) fn set_window(&self, attention: &mut AttentionConfig, window: usize) -> Result<()> {
        attention.window = Some(window);
        if let (Some(rope), Some(base)) = (&mut attention.rope, self.optional("rope.freq_base_swa")?) {
            rope.freq_base = base;
        }
        Ok(())
    }

    /// Positions that a query sees in windowed layers; `None` where the file says 0 or nothing.
    pub(crate) fn window(&self) -> Result<Option<usize>> {
        Ok(self.optional("attention.sliding_window")?.filter(|window| *window > 0))
    }
}
