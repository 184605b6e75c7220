//! Mamba-2: state spaces alone.

use super::keys::{Keys, StateHeads};
use crate::backend::Mamba2Shape;
use crate::error::Result;
use crate::model::config::{LayerConfig, Mamba2Config, MixerConfig, ModelConfig, NormKind};

pub(super) fn config(keys: &Keys<'_, '_>) -> Result<ModelConfig> {
    let StateHeads { n_head, head_dim, n_group } = keys.state_heads()?;
    let shape = Mamba2Shape { n_head, head_dim, n_group, d_state: keys.width("ssm.state_size")? };
    let mixer = Mamba2Config { shape, conv_length: keys.width("ssm.conv_kernel")? };
    keys.model(NormKind::Rms, |_| Ok(LayerConfig::new(MixerConfig::Mamba2(mixer), None)))
}
