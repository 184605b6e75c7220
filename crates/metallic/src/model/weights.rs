//! The tensors of a model by name and shape, and the structs they become.
//!
//! [`build`] is the one list of them. It runs twice over the same file: once to check shapes and count bytes
//! for the plan, before anything is allocated, and once to hand every tensor to the backend.

use metallic_gguf::{Gguf, Tensor};

use super::config::{AttentionConfig, ExpertsConfig, FfnConfig, LayerConfig, ModelConfig};
use crate::backend::{Backend, MatmulJob};
use crate::error::{Error, Result};
use crate::memory::Role;

/// What a tensor becomes: nothing while planning, weights on a backend while loading.
pub(crate) trait WeightSource {
    type Matrix: Clone;
    type Vector;

    fn matrix(&mut self, tensor: Tensor<'_>, role: Role) -> Result<Self::Matrix>;
    fn vector(&mut self, tensor: Tensor<'_>) -> Result<Self::Vector>;
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

/// All weights of a model.
pub(crate) struct Weights<M, V> {
    pub(crate) token_embedding: M,
    pub(crate) rope_factors: Option<V>,
    pub(crate) layers: Vec<LayerWeights<M, V>>,
    pub(crate) output_norm: V,
    pub(crate) output: Linear<M, V>,
}

/// The weights of one layer.
pub(crate) struct LayerWeights<M, V> {
    pub(crate) attention_norm: V,
    pub(crate) attention: AttentionWeights<M, V>,
    pub(crate) post_attention_norm: Option<V>,
    pub(crate) ffn_norm: V,
    pub(crate) ffn: FfnWeights<M, V>,
    pub(crate) post_ffn_norm: Option<V>,
}

/// Query, key, value and output projections, and norms of heads.
pub(crate) struct AttentionWeights<M, V> {
    pub(crate) query: Linear<M, V>,
    pub(crate) key: Linear<M, V>,
    pub(crate) value: Linear<M, V>,
    pub(crate) query_norm: Option<V>,
    pub(crate) key_norm: Option<V>,
    pub(crate) output: Linear<M, V>,
}

/// The feed-forward part of a layer.
pub(crate) enum FfnWeights<M, V> {
    /// One gated network for every token.
    Dense { gate: Linear<M, V>, up: Linear<M, V>, down: Linear<M, V> },
    /// A few of many networks for each token.
    Experts(ExpertWeights<M>),
}

/// The experts of a layer: the rows of all, one expert after another, in each matrix.
pub(crate) struct ExpertWeights<M> {
    pub(crate) config: ExpertsConfig,
    pub(crate) n_embd: usize,
    pub(crate) router: M,
    pub(crate) gate: M,
    pub(crate) up: M,
    pub(crate) down: M,
}

/// Finds every tensor that `config` asks for and gives it to `source`.
///
/// # Errors
/// A missing tensor or one of another shape, by name; what `source` returns.
pub(crate) fn build<S: WeightSource>(
    gguf: &Gguf<'_>,
    config: &ModelConfig,
    source: &mut S,
) -> Result<Weights<S::Matrix, S::Vector>> {
    let tied = gguf.tensor("output.weight").is_none();
    let mut build = Build { gguf, source, role: if tied { Role::Head } else { Role::Embedding } };
    let (n_embd, n_vocab) = (config.n_embd, config.n_vocab);
    let token_embedding = build.matrix("token_embd.weight", &[n_embd, n_vocab])?;
    build.role = Role::Head;
    let output =
        if tied { token_embedding.clone() } else { build.matrix("output.weight", &[n_embd, n_vocab])? };
    let n_rot = config.layers[0].attention.rope.n_rot;
    Ok(Weights {
        token_embedding,
        rope_factors: build.optional_vector("rope_freqs.weight", n_rot / 2)?,
        layers: config
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| build.layer(i, n_embd, layer))
            .collect::<Result<_>>()?,
        output_norm: build.vector("output_norm.weight", n_embd)?,
        output: Linear { matrix: output, bias: build.optional_vector("output.bias", n_vocab)? },
    })
}

struct Build<'a, 'g, S> {
    gguf: &'a Gguf<'g>,
    source: &'a mut S,
    /// Of the matrices that are looked for.
    role: Role,
}

impl<'g, S: WeightSource> Build<'_, 'g, S> {
    fn layer(
        &mut self,
        index: usize,
        n_embd: usize,
        config: &LayerConfig,
    ) -> Result<LayerWeights<S::Matrix, S::Vector>> {
        let prefix = &format!("blk.{index}");
        self.role = Role::Layer(index);
        Ok(LayerWeights {
            attention_norm: self.vector(&format!("{prefix}.attn_norm.weight"), n_embd)?,
            attention: self.attention(prefix, n_embd, &config.attention)?,
            post_attention_norm: self
                .optional_vector(&format!("{prefix}.post_attention_norm.weight"), n_embd)?,
            ffn_norm: self.vector(&format!("{prefix}.ffn_norm.weight"), n_embd)?,
            ffn: self.ffn(index, prefix, n_embd, &config.ffn)?,
            post_ffn_norm: self.optional_vector(&format!("{prefix}.post_ffw_norm.weight"), n_embd)?,
        })
    }

    fn attention(
        &mut self,
        prefix: &str,
        n_embd: usize,
        config: &AttentionConfig,
    ) -> Result<AttentionWeights<S::Matrix, S::Vector>> {
        let AttentionConfig { n_head, n_head_kv, key_length, value_length, .. } = *config;
        Ok(AttentionWeights {
            query: self.linear(&format!("{prefix}.attn_q"), n_embd, n_head * key_length)?,
            key: self.linear(&format!("{prefix}.attn_k"), n_embd, n_head_kv * key_length)?,
            value: self.linear(&format!("{prefix}.attn_v"), n_embd, n_head_kv * value_length)?,
            query_norm: self.optional_vector(&format!("{prefix}.attn_q_norm.weight"), key_length)?,
            key_norm: self.optional_vector(&format!("{prefix}.attn_k_norm.weight"), key_length)?,
            output: self.linear(&format!("{prefix}.attn_output"), n_head * value_length, n_embd)?,
        })
    }

    fn ffn(
        &mut self,
        index: usize,
        prefix: &str,
        n_embd: usize,
        config: &FfnConfig,
    ) -> Result<FfnWeights<S::Matrix, S::Vector>> {
        let n_ff = config.n_ff;
        let Some(experts) = &config.experts else {
            return Ok(FfnWeights::Dense {
                gate: self.linear(&format!("{prefix}.ffn_gate"), n_embd, n_ff)?,
                up: self.linear(&format!("{prefix}.ffn_up"), n_embd, n_ff)?,
                down: self.linear(&format!("{prefix}.ffn_down"), n_ff, n_embd)?,
            });
        };
        let n = experts.n_expert;
        let router = self.matrix(&format!("{prefix}.ffn_gate_inp.weight"), &[n_embd, n])?;
        self.role = Role::Experts(index);
        Ok(FfnWeights::Experts(ExpertWeights {
            config: experts.clone(),
            n_embd,
            router,
            gate: self.matrix(&format!("{prefix}.ffn_gate_exps.weight"), &[n_embd, n_ff, n])?,
            up: self.matrix(&format!("{prefix}.ffn_up_exps.weight"), &[n_embd, n_ff, n])?,
            down: self.matrix(&format!("{prefix}.ffn_down_exps.weight"), &[n_ff, n_embd, n])?,
        }))
    }

    fn linear(&mut self, name: &str, row_len: usize, n_rows: usize) -> Result<Linear<S::Matrix, S::Vector>> {
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), &[row_len, n_rows])?,
            bias: self.optional_vector(&format!("{name}.bias"), n_rows)?,
        })
    }

    fn matrix(&mut self, name: &str, shape: &[usize]) -> Result<S::Matrix> {
        let tensor = self.find(name, shape)?;
        self.source.matrix(tensor.ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?, self.role)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<S::Vector> {
        self.optional_vector(name, len)?.ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }

    fn optional_vector(&mut self, name: &str, len: usize) -> Result<Option<S::Vector>> {
        self.find(name, &[len])?.map(|tensor| self.source.vector(tensor)).transpose()
    }

    /// The tensor, if the file has it and its shape is right; trailing dimensions of 1 do not count.
    fn find(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'g>>> {
        let Some(tensor) = self.gguf.tensor(name) else { return Ok(None) };
        let expected: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        if trim(tensor.shape()) != trim(&expected) || tensor.n_elements() == 0 {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                found: tensor.shape().to_vec(),
                expected,
            });
        }
        Ok(Some(tensor))
    }
}

fn trim(shape: &[u64]) -> &[u64] {
    let end = shape.iter().rposition(|&n| n != 1).map_or(0, |i| i + 1);
    &shape[..end]
}
