//! Hyper-parameters as independent features: the one description that the forward pass reads.

use super::part::{Parts, mixer_of, network_of};
pub use crate::backend::{
    Activation, ExpertGroups, KeyHeads, NormKind, RopeConfig, RopePairs, Scoring, Temperature, Yarn,
};
use crate::backend::{AttentionShape, DeltaNetShape, ExpertNeeds, Mamba2Shape, RoutingShape};

/// A model's hyper-parameters, whatever its architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Longest context the model was made for, in tokens.
    pub context_length: usize,
    /// The context it was first trained for. Where the file has frequency factors for short and for long contexts, those
    /// beyond this are long.
    pub original_context: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Rows of the token embedding.
    pub n_vocab: usize,
    /// What all norms but those of mixers are.
    pub norm: NormConfig,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// Whether embeddings are normed.
    pub embedding_norm: bool,
    /// Whether a vector of its position is added to each embedding; then there are no more positions than
    /// `context_length`.
    pub learned_positions: bool,
    /// What files call the norm before the output head.
    pub output_norm: &'static str,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// `cap · tanh(x / cap)` on the logits.
    pub logit_softcap: Option<f32>,
    /// The layers, first to last.
    pub layers: Vec<LayerConfig>,
}

impl ModelConfig {
    /// The mixers among some of the parts.
    pub(crate) fn mixers(&self, parts: &Parts) -> impl Iterator<Item = &MixerConfig> {
        let layers = self.layers.iter().enumerate();
        layers.filter(|(i, _)| parts.has(mixer_of(*i))).map(|(_, layer)| &layer.mixer)
    }

    /// The networks among some of the parts.
    pub(crate) fn networks(&self, parts: &Parts) -> impl Iterator<Item = &FfnConfig> {
        let layers = self.layers.iter().enumerate();
        layers.filter(|(i, _)| parts.has(network_of(*i))).filter_map(|(_, layer)| layer.ffn.as_ref())
    }

    /// The width of the widest input of a product in some of the parts.
    pub(crate) fn max_input_width(&self, parts: &Parts) -> usize {
        let mixers = self.mixers(parts).map(|mixer| match mixer {
            MixerConfig::Attention(config) => config.n_head * config.value_length,
            MixerConfig::Latent(config) => (config.attention.n_head * config.value_length)
                .max(config.rank())
                .max(config.nope_length)
                .max(config.query_rank.unwrap_or(0)),
            MixerConfig::ShortConv(config) => config.n_channels,
            MixerConfig::Mamba2(config) => config.shape.inner(),
            MixerConfig::DeltaNet(config) => config.shape.inner(),
        });
        let networks = self.networks(parts).map(|ffn| {
            let shared = ffn.experts.as_ref().and_then(|experts| experts.shared);
            ffn.n_ff.max(shared.map_or(0, |shared| shared.n_ff))
        });
        let of_hidden = if parts.is_empty() { 0 } else { self.n_embd };
        mixers.chain(networks).fold(of_hidden, usize::max)
    }

    /// What the experts of some of the parts ask for: of those that have the most of each; `None` where none has any.
    pub(crate) fn expert_needs(&self, parts: &Parts) -> Option<ExpertNeeds> {
        let experts = self.networks(parts).filter_map(|ffn| Some((ffn, ffn.experts.as_ref()?)));
        let needs = experts.map(|(FfnConfig { n_ff, .. }, ExpertsConfig { n_expert, n_used, .. })| {
            ExpertNeeds { n_expert: *n_expert, n_used: *n_used, n_embd: self.n_embd, n_ff: *n_ff }
        });
        needs.reduce(|a, b| ExpertNeeds {
            n_expert: a.n_expert.max(b.n_expert),
            n_used: a.n_used.max(b.n_used),
            n_embd: self.n_embd,
            n_ff: a.n_ff.max(b.n_ff),
        })
    }

    /// The rotations of some of the parts that differ, each once, in the order in which layers first use them.
    pub(crate) fn distinct_ropes(&self, parts: &Parts) -> Vec<&RopeConfig> {
        let mut distinct = Vec::new();
        for rope in self.mixers(parts).filter_map(|mixer| mixer.attention()?.rope.as_ref()) {
            if !distinct.contains(&rope) {
                distinct.push(rope);
            }
        }
        distinct
    }

    /// The attention of all layers that have it, to be changed.
    pub(super) fn attentions_mut(&mut self) -> impl Iterator<Item = &mut AttentionConfig> {
        self.layers.iter_mut().filter_map(|layer| layer.mixer.attention_mut())
    }

    /// Whether what a sequence remembers can be cut back to any position, as keys and values can, or only forgotten.
    pub fn can_be_cut_back(&self) -> bool {
        self.layers.iter().all(|layer| layer.mixer.attention().is_some())
    }
}

/// A kind of norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormConfig {
    /// What rows are normed by.
    pub kind: NormKind,
    /// Added to the mean square or variance.
    pub eps: f32,
}

/// One layer: a part in which tokens see each other, and one for each token alone.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerConfig {
    /// How tokens see each other.
    pub mixer: MixerConfig,
    /// What happens to each token alone.
    pub ffn: Option<FfnConfig>,
    /// What the two parts read.
    pub wiring: Wiring,
    /// Whether what a part makes is normed before it is added to the hidden state.
    pub post_norms: bool,
    /// What that is multiplied by.
    pub residual_scale: f32,
}

impl LayerConfig {
    /// A layer as most are: one part after the other, each with a norm before it.
    pub(super) fn new(mixer: MixerConfig, ffn: Option<FfnConfig>) -> Self {
        let wiring = Wiring::Sequential { ffn_norm: "ffn_norm" };
        Self { mixer, ffn, wiring, post_norms: false, residual_scale: 1.0 }
    }
}

/// What the two parts of a layer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Each a norm of the hidden state, the second after the first has added to it. Files have this name for the second
    /// norm.
    Sequential {
        /// Name of the tensor.
        ffn_norm: &'static str,
    },
    /// The hidden state itself, one after the other.
    Unnormed,
    /// Norms of what the layer reads.
    Parallel {
        /// Whether the second has a norm of its own, or shares the first's.
        own_norms: bool,
    },
}

/// How tokens see each other.
#[derive(Clone, Debug, PartialEq)]
pub enum MixerConfig {
    /// Keys and values of all positions.
    Attention(AttentionConfig),
    /// The same, of a shorter vector that all heads share.
    Latent(LatentConfig),
    /// The last few positions.
    ShortConv(ShortConvConfig),
    /// A state space.
    Mamba2(Mamba2Config),
    /// A matrix that learns what value belongs to a key.
    DeltaNet(DeltaNetConfig),
}

impl MixerConfig {
    /// What is cached as keys and values, where anything is.
    pub fn attention(&self) -> Option<&AttentionConfig> {
        match self {
            MixerConfig::Attention(config) => Some(config),
            MixerConfig::Latent(config) => Some(&config.attention),
            MixerConfig::ShortConv(_) | MixerConfig::Mamba2(_) | MixerConfig::DeltaNet(_) => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn attention_mut(&mut self) -> Option<&mut AttentionConfig> {
        match self {
            MixerConfig::Attention(config) => Some(config),
            MixerConfig::Latent(config) => Some(&mut config.attention),
            MixerConfig::ShortConv(_) | MixerConfig::Mamba2(_) | MixerConfig::DeltaNet(_) => None,
        }
    }
}

/// Grouped-query attention.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Length of a query or key vector.
    pub key_length: usize,
    /// Length of a value vector.
    pub value_length: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// What queries of late positions are multiplied by.
    pub temperature: Option<Temperature>,
    /// A query sees this many positions, itself included.
    pub window: Option<usize>,
    /// `cap · tanh(x / cap)` on the scores.
    pub softcap: Option<f32>,
    /// Linear biases: the logarithm of the least slope to the base of one half.
    pub alibi: Option<f32>,
    /// Whether each head has a score that belongs to no position.
    pub sinks: bool,
    /// Rotary positions.
    pub rope: Option<RopeConfig>,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Queries, keys and values are kept within ± this.
    pub clamp: Option<f32>,
    /// Whether the output is multiplied by the sigmoid of a gate, which is projected with the queries.
    pub output_gate: bool,
}

impl AttentionConfig {
    /// The numbers of the operation.
    pub fn shape(&self) -> AttentionShape {
        let Self { n_head, key_length, value_length, scale, softcap, window, alibi, .. } = *self;
        AttentionShape { n_head, key_length, value_length, scale, softcap, window, alibi }
    }
}

/// What the norms of queries and keys go over. The kind is that of the model's norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head, with the weights of all.
    EachHead,
    /// Each head, with weights of its own.
    EachHeadOwn,
    /// All heads together.
    AllHeads,
}

/// Multi-head latent attention (DeepSeek-AI 2024): keys and values of all heads are made of one short vector. The
/// matrices that would make them are applied to queries and outputs instead, so only that vector is cached.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentConfig {
    /// Attention over the cached vectors: one key head, whose key is what is rotated and then the vector, and whose value
    /// is the vector.
    pub attention: AttentionConfig,
    /// Values of a query that meet the vector.
    pub nope_length: usize,
    /// Length of a head's output.
    pub value_length: usize,
    /// Length of what queries are made of, where that is shorter too.
    pub query_rank: Option<usize>,
}

impl LatentConfig {
    /// Values of a query or key that are rotated.
    pub fn rope_length(&self) -> usize {
        self.attention.key_length - self.rank()
    }

    /// Length of the vector.
    pub fn rank(&self) -> usize {
        self.attention.value_length
    }
}

/// A gated convolution over the last few positions (LFM2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortConvConfig {
    /// Values of a position.
    pub n_channels: usize,
    /// Positions that it sees, its own among them.
    pub length: usize,
}

/// Mamba-2: a convolution, then a state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mamba2Config {
    /// The state space.
    pub shape: Mamba2Shape,
    /// Positions that the convolution sees.
    pub conv_length: usize,
}

/// A gated delta net: a convolution, then the delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNetConfig {
    /// The delta rule.
    pub shape: DeltaNetShape,
    /// Positions that the convolution sees.
    pub conv_length: usize,
}

/// The feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct FfnConfig {
    /// Width of the inner layer, of one expert where there are experts.
    pub n_ff: usize,
    /// The non-linearity.
    pub activation: Activation,
    /// What it is applied to.
    pub gate: Gate,
    /// Present in a mixture of experts.
    pub experts: Option<ExpertsConfig>,
}

/// What goes through the activation of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// A projection of its own, which multiplies the inner layer.
    Own,
    /// The same, but it is the first half of the inner layer's tensor.
    Merged,
    /// The inner layer.
    None,
}

/// Which experts a token is sent to, and what each counts.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Experts in a layer.
    pub n_expert: usize,
    /// Experts a token is sent to.
    pub n_used: usize,
    /// From the router's output to shares.
    pub scoring: Scoring,
    /// Whether the shares of those used are made to sum to one.
    pub normalize: bool,
    /// What shares are multiplied by in the end.
    pub scale: f32,
    /// Choice of groups first.
    pub groups: Option<ExpertGroups>,
    /// A network for every token beside them.
    pub shared: Option<SharedExpert>,
}

impl ExpertsConfig {
    /// The numbers of the choice.
    pub fn routing(&self) -> RoutingShape {
        let Self { n_expert, n_used, scoring, normalize, scale, groups, .. } = *self;
        RoutingShape { n_expert, n_used, scoring, normalize, scale, groups }
    }
}

/// An expert that every token goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedExpert {
    /// Width of its inner layer.
    pub n_ff: usize,
    /// Whether a sigmoid says how much it counts.
    pub gated: bool,
}
