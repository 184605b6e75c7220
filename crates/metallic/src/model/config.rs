//! Hyper-parameters as independent features: the one description that the forward pass reads.

pub use metallic_kernels::activation::Activation;
pub use metallic_kernels::rope::{RopePairs, Yarn};

/// A model's hyper-parameters, whatever its architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `general.architecture` of the file.
    pub architecture: String,
    /// Longest context the model was made for, in tokens.
    pub context_length: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Rows of the token embedding.
    pub n_vocab: usize,
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// `cap · tanh(x / cap)` on the logits.
    pub logit_softcap: Option<f32>,
    /// The layers, first to last.
    pub layers: Vec<LayerConfig>,
}

impl ModelConfig {
    /// The width of the widest input of a product.
    pub fn max_input_width(&self) -> usize {
        let widest = |layer: &LayerConfig| {
            let attended = layer.attention.n_head.saturating_mul(layer.attention.value_length);
            attended.max(layer.ffn.n_ff)
        };
        self.layers.iter().map(widest).max().unwrap_or(0).max(self.n_embd)
    }

    /// Experts of a layer, of that which has the most; `None` where none has any.
    pub(crate) fn max_experts(&self) -> Option<usize> {
        self.layers
            .iter()
            .filter_map(|layer| layer.ffn.experts.as_ref())
            .map(|experts| experts.n_expert)
            .max()
    }

    /// The rotations that differ, each once, in the order in which layers first use them.
    pub(crate) fn distinct_ropes(&self) -> Vec<&RopeConfig> {
        let mut distinct = Vec::new();
        for layer in &self.layers {
            if !distinct.contains(&&layer.attention.rope) {
                distinct.push(&layer.attention.rope);
            }
        }
        distinct
    }
}

/// One transformer block.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerConfig {
    /// How tokens look at each other.
    pub attention: AttentionConfig,
    /// What happens to each token alone.
    pub ffn: FfnConfig,
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
    /// A query sees this many positions, itself included.
    pub window: Option<usize>,
    /// `cap · tanh(x / cap)` on the scores.
    pub softcap: Option<f32>,
    /// Rotary positions.
    pub rope: RopeConfig,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Which values of a head turn together.
    pub pairs: RopePairs,
    /// How many values of a head turn, the first ones.
    pub n_rot: usize,
    /// Base of the frequencies.
    pub freq_base: f32,
    /// What positions are multiplied by to reach past the trained context; 1 as trained.
    pub freq_scale: f32,
    /// What the rotated values are multiplied by.
    pub attn_factor: f32,
    /// YaRN, where the model is stretched by it.
    pub yarn: Option<Yarn>,
}

/// The feed-forward network.
#[derive(Clone, Debug, PartialEq)]
pub struct FfnConfig {
    /// Width of the inner layer, of one expert where there are experts.
    pub n_ff: usize,
    /// The non-linearity.
    pub activation: Activation,
    /// Present in a mixture of experts.
    pub experts: Option<ExpertsConfig>,
}

/// Routing of tokens to experts: softmax over all, the best few, weights normalised to sum to one.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Experts in a layer.
    pub n_expert: usize,
    /// Experts a token is sent to.
    pub n_used: usize,
}
