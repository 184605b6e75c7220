//! Which parts of a model a device computes, where its memory has no room for all.

use super::StageNeeds;
use crate::model::census::Usage;
use crate::model::config::ModelConfig;
use crate::model::part::{EMBEDDING, Part, mixer_of, n_parts};

/// What of a model is to be computed on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Of so many of the last layers, and the head with them; `None` for any.
    pub n_layers: Option<usize>,
    /// Whether it is to have all of them, and those weights swapped in that its memory has no room for.
    pub swaps: bool,
    /// So many of the first layers keep their experts on the CPU.
    pub n_cpu_moe: usize,
}

impl Offload {
    /// As much as there is room for.
    pub const AUTO: Self = Self { n_layers: None, swaps: false, n_cpu_moe: 0 };
}

/// Orders in which a device may take parts that nobody has taken yet, as many as fit.
///
/// First the head, which is read for every token, and then layers from the last one on, so that there is one boundary. Of a
/// mixture a token uses few experts: there, all other parts may be worth more than whole layers. Last the embedding, of
/// which a token uses a row.
pub(crate) fn orders(config: &ModelConfig, stage_of: &[usize], offload: Offload) -> Vec<Vec<usize>> {
    let n_layers = config.layers.len();
    let first_layer = n_layers.saturating_sub(offload.n_layers.unwrap_or(n_layers));
    let has_experts =
        |layer: usize| config.layers[layer].ffn.as_ref().is_some_and(|ffn| ffn.experts.is_some());
    let mixture = |part: &usize| match Part::of(*part, n_layers) {
        Part::Network(layer) => Some(layer).filter(|layer| has_experts(*layer)),
        Part::Embedding | Part::Mixer(_) | Part::Head => None,
    };
    let stays = |part: &usize| mixture(part).is_some_and(|layer| layer < offload.n_cpu_moe);
    let layers = (mixer_of(first_layer)..n_parts(n_layers)).rev();
    let parts = layers.chain((first_layer == 0).then_some(EMBEDDING));
    let parts: Vec<usize> = parts.filter(|part| stage_of[*part] == 0 && !stays(part)).collect();
    let (experts, mut others): (Vec<_>, Vec<_>) =
        parts.iter().copied().partition(|part| mixture(part).is_some());
    if experts.is_empty() {
        return vec![parts];
    }
    let embedding = others.pop_if(|part| *part == EMBEDDING);
    vec![parts, others.into_iter().chain(experts).chain(embedding).collect()]
}

/// Bytes of weights that a stage reads for a token.
pub(crate) fn bytes_of_a_token(stage: &StageNeeds) -> f64 {
    let matrices = stage.weights.matrices.iter().chain(&stage.weights.copied);
    let bytes = matrices.map(|matrix| match matrix.usage {
        Usage::Whole | Usage::Logits => matrix.bytes as f64,
        Usage::Experts { n_used, n_expert } => matrix.bytes as f64 * n_used as f64 / n_expert as f64,
        Usage::Row => 0.0,
    });
    bytes.sum()
}
