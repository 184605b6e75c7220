//! The tensors of a model by name and shape, and the structs they become.
//!
//! [`build`] is the one list of them. It runs twice over the same file: once to check shapes and count bytes
//! for the plan, before anything is allocated, and once to hand every tensor to the backend.

use std::ops::Range;

use metallic_gguf::{Gguf, Tensor};

use super::config::{ExpertsConfig, ModelConfig, NormConfig, NormKind};
use super::part::Parts;
use crate::backend::{self, Backend, MatmulJob, Norm};
use crate::error::{Error, Result};

mod build;

/// What a matrix is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatrixRole {
    /// Of a layer: used in every pass.
    Layer(usize),
    /// Of a layer's experts: a part is used in every pass, and stays by use.
    Experts(usize),
    /// The output head: used where logits are wanted.
    Head,
    /// The token embedding alone: a row a token.
    Embedding,
}

/// What a tensor becomes: nothing while planning, weights on a backend while loading.
pub(crate) trait WeightSource {
    type Matrix: Clone;
    type Vector;

    fn matrix(&mut self, tensor: Tensor<'_>, role: MatrixRole) -> Result<Self::Matrix>;
    /// Some rows of a matrix, which has `of`.
    fn rows(&self, matrix: &Self::Matrix, rows: Range<usize>, of: usize) -> Self::Matrix;
    /// Some values of a tensor.
    fn vector(&mut self, tensor: Tensor<'_>, values: Range<usize>) -> Result<Self::Vector>;

    /// What stands for a matrix that the file lacks: an error, or something to go on with and find what else it lacks.
    fn absent_matrix(&mut self, name: &str) -> Result<Self::Matrix> {
        Err(Error::missing_tensor(name))
    }
    /// The same for a vector.
    fn absent_vector(&mut self, name: &str) -> Result<Self::Vector> {
        Err(Error::missing_tensor(name))
    }
}

/// Finds every tensor that `parts` of a model need and gives it to `source`.
///
/// # Errors
/// A missing tensor or one of another shape, by name; what `source` returns.
pub(crate) fn build<S: WeightSource>(
    gguf: &Gguf<'_>,
    config: &ModelConfig,
    parts: &Parts,
    source: &mut S,
) -> Result<Weights<S::Matrix, S::Vector>> {
    build::Build::new(gguf, config, source).weights(parts)
}

/// A matrix and, where the file has one, its bias.
pub(crate) struct Linear<M, V> {
    pub(crate) matrix: M,
    pub(crate) bias: Option<V>,
}

impl<M, V> Linear<M, V> {
    /// The product with this layer, to be written to `out`.
    pub(crate) fn job<'a, B>(&'a self, out: &'a mut V) -> MatmulJob<'a, B>
    where
        B: Backend<Matrix = M, Buffer = V>,
    {
        MatmulJob { bias: self.bias.as_ref(), ..MatmulJob::new(&self.matrix, out) }
    }

    /// The product with this layer, to be added to `out`.
    pub(crate) fn job_adding_to<'a, B>(&'a self, out: &'a mut V) -> MatmulJob<'a, B>
    where
        B: Backend<Matrix = M, Buffer = V>,
    {
        MatmulJob { accumulate: true, ..self.job(out) }
    }
}

/// A norm's weights and, where the file has one, its bias.
pub(crate) struct NormWeights<V> {
    kind: NormKind,
    pub(crate) eps: f32,
    weight: V,
    bias: Option<V>,
}

impl<V> NormWeights<V> {
    /// The norm.
    pub(crate) fn as_norm<B: Backend<Buffer = V>>(&self) -> Norm<'_, B> {
        Norm { kind: self.kind, weight: &self.weight, bias: self.bias.as_ref(), eps: self.eps }
    }
}

/// The weights of a model, or of those of its parts that are computed in one place.
pub(crate) struct Weights<M, V> {
    pub(crate) embedding: Option<EmbeddingWeights<M, V>>,
    pub(crate) rope_factors: RopeFactors<V>,
    /// All layers, with the parts that are here.
    pub(crate) layers: Vec<LayerWeights<M, V>>,
    pub(crate) head: Option<HeadWeights<M, V>>,
}

/// From tokens to the hidden state.
pub(crate) struct EmbeddingWeights<M, V> {
    pub(crate) tokens: M,
    pub(crate) norm: Option<NormWeights<V>>,
    /// A row for each position.
    pub(crate) positions: Option<M>,
}

/// From the hidden state to logits.
pub(crate) struct HeadWeights<M, V> {
    pub(crate) norm: NormWeights<V>,
    pub(crate) output: Linear<M, V>,
}

/// Divisors of the frequencies of rotation.
pub(crate) enum RopeFactors<V> {
    None,
    Same(V),
    /// One set for short and one for long contexts, of which a file may lack the one that it does not need.
    ByContext {
        short: Option<V>,
        long: Option<V>,
    },
}

impl<V> RopeFactors<V> {
    /// Those for a context of this length.
    pub(crate) fn of_context(&self, n_ctx: usize, config: &ModelConfig) -> Result<Option<&V>> {
        let (name, factors) = match self {
            RopeFactors::None => return Ok(None),
            RopeFactors::Same(factors) => return Ok(Some(factors)),
            RopeFactors::ByContext { long, .. } if n_ctx > config.original_context => {
                (ROPE_FACTORS_LONG, long)
            }
            RopeFactors::ByContext { short, .. } => (ROPE_FACTORS_SHORT, short),
        };
        let missing = || Error::MissingRopeFactors { name, n_ctx, original_context: config.original_context };
        Ok(Some(factors.as_ref().ok_or_else(missing)?))
    }
}

const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";
const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";

/// The weights of one layer.
pub(crate) struct LayerWeights<M, V> {
    pub(crate) mixer: Option<MixerPart<M, V>>,
    pub(crate) network: Option<NetworkPart<M, V>>,
}

/// The part of a layer in which tokens see each other.
pub(crate) struct MixerPart<M, V> {
    /// What both parts of the layer read, where they run beside each other and share it; else what this one reads.
    pub(crate) norm: Option<NormWeights<V>>,
    /// What the mixer reads instead, where they differ.
    pub(crate) own_norm: Option<NormWeights<V>>,
    /// What the network beside it reads instead, where they differ: it is made before the mixer adds to the hidden state.
    pub(crate) network_norm: Option<NormWeights<V>>,
    pub(crate) mixer: MixerWeights<M, V>,
    pub(crate) post_norm: Option<NormWeights<V>>,
}

/// The part of a layer for each token alone.
pub(crate) struct NetworkPart<M, V> {
    /// Where it runs after the mixer.
    pub(crate) norm: Option<NormWeights<V>>,
    pub(crate) ffn: FfnWeights<M, V>,
    pub(crate) post_norm: Option<NormWeights<V>>,
}

/// How tokens see each other.
pub(crate) enum MixerWeights<M, V> {
    Attention(AttentionWeights<M, V>),
    Latent(LatentWeights<M, V>),
    ShortConv(ShortConvWeights<M, V>),
    Mamba2(Mamba2Weights<M, V>),
    DeltaNet(DeltaNetWeights<M, V>),
}

/// Query, key, value and output projections, norms of heads, and scores of no position.
pub(crate) struct AttentionWeights<M, V> {
    pub(crate) query: Linear<M, V>,
    pub(crate) key: Linear<M, V>,
    pub(crate) value: Linear<M, V>,
    pub(crate) query_norm: Option<NormWeights<V>>,
    pub(crate) key_norm: Option<NormWeights<V>>,
    pub(crate) sinks: Option<V>,
    pub(crate) output: Linear<M, V>,
}

/// Latent attention: what makes queries and vectors, and what makes keys and values of them, one matrix a head.
pub(crate) struct LatentWeights<M, V> {
    pub(crate) query: LatentQuery<M, V>,
    pub(crate) down: Linear<M, V>,
    pub(crate) norm: NormWeights<V>,
    /// Transposed: they are applied to queries.
    pub(crate) key_up: Vec<M>,
    pub(crate) value_up: Vec<M>,
    pub(crate) output: Linear<M, V>,
}

/// How latent attention makes its queries.
pub(crate) enum LatentQuery<M, V> {
    Whole(Linear<M, V>),
    Compressed { down: Linear<M, V>, norm: NormWeights<V>, up: Linear<M, V> },
}

/// A gated convolution.
pub(crate) struct ShortConvWeights<M, V> {
    pub(crate) input: Linear<M, V>,
    pub(crate) kernel: V,
    pub(crate) output: Linear<M, V>,
}

/// A state space.
pub(crate) struct Mamba2Weights<M, V> {
    pub(crate) input: Linear<M, V>,
    pub(crate) kernel: V,
    pub(crate) kernel_bias: Option<V>,
    pub(crate) a: V,
    pub(crate) d: V,
    pub(crate) dt_bias: V,
    pub(crate) norm: NormWeights<V>,
    pub(crate) output: Linear<M, V>,
}

/// A gated delta net.
pub(crate) struct DeltaNetWeights<M, V> {
    pub(crate) input: DeltaNetInput<M, V>,
    pub(crate) rates: DeltaNetRates<M, V>,
    pub(crate) kernel: V,
    pub(crate) a: V,
    pub(crate) dt_bias: V,
    pub(crate) norm: NormWeights<V>,
    pub(crate) output: Linear<M, V>,
}

/// What makes queries, keys and values, and gates.
pub(crate) enum DeltaNetInput<M, V> {
    Split {
        conv: Linear<M, V>,
        gate: Linear<M, V>,
    },
    /// Key head after key head.
    ByKeyHead(Linear<M, V>),
}

/// What makes the rates of a delta net.
pub(crate) enum DeltaNetRates<M, V> {
    Split {
        beta: Linear<M, V>,
        alpha: Linear<M, V>,
    },
    /// Key head after key head.
    ByKeyHead(Linear<M, V>),
}

/// The feed-forward part of a layer.
pub(crate) enum FfnWeights<M, V> {
    /// One network for every token.
    Dense(DenseWeights<M, V>),
    /// A few of many networks for each token.
    Experts(Box<ExpertWeights<M, V>>),
}

/// A feed-forward network.
pub(crate) struct DenseWeights<M, V> {
    pub(crate) gate: Option<Linear<M, V>>,
    pub(crate) up: Linear<M, V>,
    /// What the activations are divided by.
    pub(crate) divisors: Option<V>,
    pub(crate) down: Linear<M, V>,
}

/// The experts of a layer.
pub(crate) struct ExpertWeights<M, V> {
    pub(crate) config: ExpertsConfig,
    pub(crate) router: Linear<M, V>,
    /// Added to the scores of experts when they are chosen.
    pub(crate) choice_bias: Option<V>,
    pub(crate) gate: ExpertMatrix<M, V>,
    pub(crate) up: ExpertMatrix<M, V>,
    pub(crate) down: ExpertMatrix<M, V>,
    pub(crate) shared: Option<SharedWeights<M, V>>,
}

/// One matrix of every expert: rows of a matrix of all.
pub(crate) struct ExpertMatrix<M, V> {
    pub(crate) all: M,
    /// First row of the first expert.
    pub(crate) first: usize,
    /// From one expert's to the next one's.
    pub(crate) stride: usize,
    /// Of one expert.
    pub(crate) n_rows: usize,
    /// `n_rows` values for each expert.
    pub(crate) bias: Option<V>,
}

impl<M, V> ExpertMatrix<M, V> {
    /// The same, for a backend.
    pub(crate) fn of_experts<B: Backend<Matrix = M, Buffer = V>>(&self) -> backend::ExpertMatrix<'_, B> {
        let Self { all, first, stride, n_rows, bias } = self;
        backend::ExpertMatrix { all, first: *first, stride: *stride, n_rows: *n_rows, bias: bias.as_ref() }
    }
}

/// The expert that every token goes to.
pub(crate) struct SharedWeights<M, V> {
    pub(crate) gate: Linear<M, V>,
    pub(crate) up: Linear<M, V>,
    pub(crate) down: Linear<M, V>,
    /// One row: how much it counts.
    pub(crate) router: Option<M>,
}

impl<M, V> LayerWeights<M, V> {
    /// Calls `visit` with the matrices that every token meets, in the order of their use: all but those of experts, which
    /// come last.
    pub(crate) fn each_matrix(&self, visit: &mut dyn FnMut(&M)) {
        if let Some(part) = &self.mixer {
            part.mixer.each_matrix(visit);
        }
        if let Some(part) = &self.network {
            part.ffn.each_matrix(visit);
        }
    }

    /// The experts, if there are any.
    pub(crate) fn experts(&self) -> Option<&ExpertWeights<M, V>> {
        self.network.as_ref()?.ffn.experts()
    }
}

impl<M, V> MixerWeights<M, V> {
    /// See [`LayerWeights::each_matrix`].
    pub(crate) fn each_matrix(&self, visit: &mut dyn FnMut(&M)) {
        let mut linears = |linears: &[&Linear<M, V>]| linears.iter().for_each(|linear| visit(&linear.matrix));
        match self {
            MixerWeights::Attention(w) => linears(&[&w.query, &w.key, &w.value, &w.output]),
            MixerWeights::ShortConv(w) => linears(&[&w.input, &w.output]),
            MixerWeights::Mamba2(w) => linears(&[&w.input, &w.output]),
            MixerWeights::Latent(w) => {
                match &w.query {
                    LatentQuery::Whole(query) => linears(&[query, &w.down]),
                    LatentQuery::Compressed { down, up, .. } => linears(&[down, &w.down, up]),
                }
                w.key_up.iter().chain(&w.value_up).for_each(&mut *visit);
                visit(&w.output.matrix);
            }
            MixerWeights::DeltaNet(w) => {
                match &w.input {
                    DeltaNetInput::Split { conv, gate } => linears(&[conv, gate]),
                    DeltaNetInput::ByKeyHead(all) => linears(&[all]),
                }
                match &w.rates {
                    DeltaNetRates::Split { beta, alpha } => linears(&[beta, alpha]),
                    DeltaNetRates::ByKeyHead(both) => linears(&[both]),
                }
                linears(&[&w.output]);
            }
        }
    }
}

impl<M, V> FfnWeights<M, V> {
    /// See [`LayerWeights::experts`].
    pub(crate) fn experts(&self) -> Option<&ExpertWeights<M, V>> {
        match self {
            FfnWeights::Experts(experts) => Some(experts.as_ref()),
            FfnWeights::Dense(_) => None,
        }
    }

    /// See [`LayerWeights::each_matrix`].
    pub(crate) fn each_matrix(&self, visit: &mut dyn FnMut(&M)) {
        let mut linears = |linears: &[&Linear<M, V>]| linears.iter().for_each(|linear| visit(&linear.matrix));
        match self {
            FfnWeights::Dense(w) => {
                w.gate.iter().for_each(|gate| linears(&[gate]));
                linears(&[&w.up, &w.down]);
            }
            FfnWeights::Experts(w) => {
                if let Some(shared) = &w.shared {
                    linears(&[&shared.gate, &shared.up, &shared.down]);
                    shared.router.iter().for_each(&mut *visit);
                }
                visit(&w.router.matrix);
            }
        }
    }
}
