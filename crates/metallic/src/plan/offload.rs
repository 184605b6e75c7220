//! Which parts of a model a device computes, where its memory has no room for all.

use std::ops::Range;

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
/// Layers from the last one on, after the head, so that there is one boundary, or before it, where it is so large that they are
/// worth more. Of a mixture a token uses few experts: there, all other parts may be worth more than whole layers. Last the
/// embedding, of which a token uses a row.
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
    let is_free = |part: &usize| stage_of[*part] == 0 && !stays(part);
    let of = |parts: Range<usize>| parts.rev().filter(is_free).collect::<Vec<_>>();
    let (head, n_parts) = (n_parts(n_layers) - 1, n_parts(n_layers));
    let (layers, head) = (of(mixer_of(first_layer)..head), of(head..n_parts));
    let embedding = if first_layer == 0 { of(EMBEDDING..EMBEDDING + 1) } else { Vec::new() };
    let (experts, others): (Vec<usize>, Vec<usize>) = layers.iter().partition(|part| mixture(part).is_some());
    let mut orders = vec![[&head[..], &layers, &[]]];
    // Where all are taken, their order is of no account.
    if !offload.swaps {
        orders.push([&layers, &head, &[]]);
        if !experts.is_empty() {
            orders.extend([[&head[..], &others, &experts], [&others, &head, &experts]]);
        }
    }
    orders.into_iter().map(|order| [&order.concat()[..], &embedding].concat()).collect()
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
