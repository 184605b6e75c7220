//! The numbers of operations: what they need to know beside their buffers, of whatever model they are.

pub use metallic_kernels::activation::Activation;
pub use metallic_kernels::norm::NormKind;
pub use metallic_kernels::recurrent::KeyHeads;
pub use metallic_kernels::rope::{RopePairs, Yarn};

/// Of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub n_head: usize,
    /// Length of a query or key vector.
    pub key_length: usize,
    /// Length of a value vector.
    pub value_length: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// `cap · tanh(x / cap)` on the scores.
    pub softcap: Option<f32>,
    /// A query sees this many positions, itself included.
    pub window: Option<usize>,
    /// Linear biases: the logarithm of the least slope to the base of one half.
    pub alibi: Option<f32>,
}

/// Of rotary position embedding.
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

/// Of Mamba-2's state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mamba2Shape {
    /// Heads.
    pub n_head: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Groups of heads that share what enters and leaves the state.
    pub n_group: usize,
    /// Length of a state for each value.
    pub d_state: usize,
}

impl Mamba2Shape {
    /// Values of all heads.
    pub fn inner(&self) -> usize {
        self.n_head * self.head_dim
    }

    /// Values of a row: of all heads, and what enters and leaves the state.
    pub fn n_channels(&self) -> usize {
        self.inner() + 2 * self.n_group * self.d_state
    }
}

/// Of the gated delta rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaNetShape {
    /// Heads of queries and keys.
    pub n_key_head: usize,
    /// Heads of values; a multiple.
    pub n_value_head: usize,
    /// Length of a query or key.
    pub key_dim: usize,
    /// Length of a value.
    pub value_dim: usize,
    /// Which key head a value head takes.
    pub key_heads: KeyHeads,
}

impl DeltaNetShape {
    /// Values of all heads.
    pub fn inner(&self) -> usize {
        self.n_value_head * self.value_dim
    }

    /// Values of a row: queries, keys and values.
    pub fn n_channels(&self) -> usize {
        2 * self.n_key_head * self.key_dim + self.inner()
    }
}

/// Of the choice of experts, and what each counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoutingShape {
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
}

/// How shares are made of the router's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// The softmax over all experts.
    Softmax,
    /// The sigmoid of each.
    Sigmoid,
    /// The softmax over those used.
    SoftmaxOfUsed,
}

/// Experts in groups: a token goes to experts of the best few groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// Groups; divides the number of experts.
    pub n_group: usize,
    /// Groups a token is sent to.
    pub n_used: usize,
}

/// `1 + scale · ln(1 + ⌊position / length⌋)`: keeps attention sharp in long contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// How much.
    pub scale: f32,
    /// Positions that it does not touch.
    pub length: usize,
}

impl Temperature {
    /// At a position.
    pub fn at(self, position: usize) -> f32 {
        1.0 + self.scale * ((1 + position / self.length) as f32).ln()
    }
}
