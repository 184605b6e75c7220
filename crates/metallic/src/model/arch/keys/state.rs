//! Mixers that have a state instead of keys and values.

use metallic_gguf::Value;

use super::Keys;
use crate::error::Result;

/// Heads of a mixer with a state, and groups of them that share keys.
pub(crate) struct StateHeads {
    pub(crate) n_head: usize,
    pub(crate) head_dim: usize,
    pub(crate) n_group: usize,
}

impl Keys<'_, '_> {
    /// Which layers have a state instead of attention: `attention.recurrent_layers` has a flag for each, or every
    /// `full_attention_interval`-th has attention.
    pub(crate) fn recurrent_layers(&self, n_layers: usize) -> Result<Vec<bool>> {
        let key = "attention.recurrent_layers";
        if let Some(Value::Array(flags)) = self.metadata.get(&self.full(key)) {
            return self.flags(key, flags.element_type());
        }
        let key = "full_attention_interval";
        let interval = self.optional(key)?.unwrap_or(4_usize);
        if interval == 0 {
            return Err(self.invalid(key, 0, "it must be at least 1"));
        }
        Ok((1..=n_layers).map(|layer| !layer.is_multiple_of(interval)).collect())
    }

    /// The heads of a mixer with a state.
    pub(crate) fn state_heads(&self) -> Result<StateHeads> {
        let (inner, n_head) = (self.width("ssm.inner_size")?, self.width("ssm.time_step_rank")?);
        let n_group = self.width("ssm.group_count")?;
        if !inner.is_multiple_of(n_head) {
            return Err(self.invalid("ssm.time_step_rank", n_head, "it must divide ssm.inner_size"));
        }
        if !n_head.is_multiple_of(n_group) {
            return Err(self.invalid("ssm.group_count", n_group, "it must divide ssm.time_step_rank"));
        }
        Ok(StateHeads { n_head, head_dim: inner / n_head, n_group })
    }
}
