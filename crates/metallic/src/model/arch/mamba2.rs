//! Mamba-2: state spaces alone.

use super::Keys;
use crate::error::Result;
use crate::model::config::{LayerConfig, Mamba2Config, MixerConfig, ModelConfig, NormKind, Wiring};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let mamba = mamba(keys)?;
    keys.model(NormKind::Rms, |_| {
        Ok(LayerConfig {
            mixer: MixerConfig::Mamba2(mamba),
            ffn: None,
            wiring: Wiring::Sequential { ffn_norm: "ffn_norm" },
            post_norms: false,
            residual_scale: 1.0,
        })
    })
}

fn mamba(keys: &Keys<'_, '_>) -> Result<Mamba2Config> {
    let (inner, n_head) = (keys.width("ssm.inner_size")?, keys.width("ssm.time_step_rank")?);
    let n_group = keys.width("ssm.group_count")?;
    if !inner.is_multiple_of(n_head) {
        return Err(keys.invalid("ssm.time_step_rank", n_head, "it must divide ssm.inner_size"));
    }
    if !n_head.is_multiple_of(n_group) {
        return Err(keys.invalid("ssm.group_count", n_group, "it must divide ssm.time_step_rank"));
    }
    Ok(Mamba2Config {
        n_head,
        head_dim: inner / n_head,
        n_group,
        d_state: keys.width("ssm.state_size")?,
        conv_length: keys.width("ssm.conv_kernel")?,
    })
}
