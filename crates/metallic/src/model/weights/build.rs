//! The one list of tensors by name and shape.

use std::ops::Range;

use metallic_gguf::{Gguf, Tensor};

use super::{
    AttentionWeights, DeltaNetInput, DeltaNetRates, DeltaNetWeights, DenseWeights, EmbeddingWeights,
    ExpertMatrix, ExpertWeights, FfnWeights, HeadWeights, LatentQuery, LatentWeights, LayerWeights, Linear,
    Mamba2Weights, MatrixRole, MixerPart, MixerWeights, NetworkPart, NormConfig, NormWeights,
    ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, RopeFactors, SharedWeights, ShortConvWeights, WeightSource,
    Weights,
};
use crate::backend::Mamba2Shape;
use crate::error::{Error, Result};
use crate::model::config::{
    AttentionConfig, DeltaNetConfig, ExpertsConfig, FfnConfig, Gate, LatentConfig, LayerConfig, Mamba2Config,
    MixerConfig, ModelConfig, QkNorm, SharedExpert, ShortConvConfig, Wiring,
};
use crate::model::part::{Parts, mixer_of, network_of};

/// The search for the tensors of a model.
pub(super) struct Build<'a, 'g, S> {
    gguf: &'a Gguf<'g>,
    config: &'a ModelConfig,
    source: &'a mut S,
    /// Of the matrices that are looked for.
    role: MatrixRole,
    /// What the names of tensors begin with.
    prefix: String,
}

type Matrix<S> = <S as WeightSource>::Matrix;
type Vector<S> = <S as WeightSource>::Vector;
type LinearOf<S> = Linear<Matrix<S>, Vector<S>>;

impl<'a, 'g, S: WeightSource> Build<'a, 'g, S> {
    pub(super) fn new(gguf: &'a Gguf<'g>, config: &'a ModelConfig, source: &'a mut S) -> Self {
        Self { gguf, config, source, role: MatrixRole::Embedding, prefix: String::new() }
    }

    pub(super) fn weights(mut self, parts: &Parts) -> Result<Weights<Matrix<S>, Vector<S>>> {
        let config = self.config;
        // A head without a matrix of its own takes that of the embedding.
        let tied = !self.has("output.weight");
        self.role = if tied && parts.has_head() { MatrixRole::Head } else { MatrixRole::Embedding };
        let has_table = parts.has_embedding() || tied && parts.has_head();
        let table = [config.n_embd, config.n_vocab];
        let table = has_table.then(|| self.matrix("token_embd.weight", &table)).transpose()?;
        let embedding = match &table {
            Some(table) if parts.has_embedding() => Some(self.embedding(table.clone())?),
            _ => None,
        };
        let head = parts.has_head().then(|| self.head(table.filter(|_| tied))).transpose()?;
        let rope_factors = self.rope_factors(parts)?;
        let layers = config.layers.iter().enumerate().map(|(i, layer)| self.layer(i, layer, parts));
        Ok(Weights { embedding, rope_factors, layers: layers.collect::<Result<_>>()?, head })
    }

    fn embedding(&mut self, tokens: Matrix<S>) -> Result<EmbeddingWeights<Matrix<S>, Vector<S>>> {
        let config = self.config;
        self.role = MatrixRole::Embedding;
        let norm = config.embedding_norm.then(|| self.norm("token_embd_norm")).transpose()?;
        let positions = [config.n_embd, config.context_length];
        let positions =
            config.learned_positions.then(|| self.matrix("position_embd.weight", &positions)).transpose()?;
        Ok(EmbeddingWeights { tokens, norm, positions })
    }

    /// With the matrix of the embedding, where that is tied.
    fn head(&mut self, tied: Option<Matrix<S>>) -> Result<HeadWeights<Matrix<S>, Vector<S>>> {
        let (n_embd, n_vocab) = (self.config.n_embd, self.config.n_vocab);
        self.role = MatrixRole::Head;
        let matrix = match tied {
            Some(table) => table,
            None => self.matrix("output.weight", &[n_embd, n_vocab])?,
        };
        let output = Linear { matrix, bias: self.optional_vector("output.bias", &[n_vocab])? };
        Ok(HeadWeights { norm: self.norm(self.config.output_norm)?, output })
    }

    fn rope_factors(&mut self, parts: &Parts) -> Result<RopeFactors<Vector<S>>> {
        let mut attention = self.config.mixers(parts).filter_map(|mixer| mixer.attention());
        let Some(rope) = attention.find_map(|attention| attention.rope.as_ref()) else {
            return Ok(RopeFactors::None);
        };
        let shape = [rope.n_rot / 2];
        if let Some(factors) = self.optional_vector("rope_freqs.weight", &shape)? {
            return Ok(RopeFactors::Same(factors));
        }
        let short = self.optional_vector(ROPE_FACTORS_SHORT, &shape)?;
        let long = self.optional_vector(ROPE_FACTORS_LONG, &shape)?;
        Ok(match (&short, &long) {
            (None, None) => RopeFactors::None,
            _ => RopeFactors::ByContext { short, long },
        })
    }

    fn layer(
        &mut self,
        index: usize,
        config: &LayerConfig,
        parts: &Parts,
    ) -> Result<LayerWeights<Matrix<S>, Vector<S>>> {
        self.prefix = format!("blk.{index}.");
        self.role = MatrixRole::Layer(index);
        let mixer = parts.has(mixer_of(index)).then(|| self.mixer_part(config)).transpose()?;
        let ffn = config.ffn.as_ref().filter(|_| parts.has(network_of(index)));
        let network = ffn.map(|ffn| self.network_part(index, config, ffn)).transpose()?;
        Ok(LayerWeights { mixer, network })
    }

    fn mixer_part(&mut self, config: &LayerConfig) -> Result<MixerPart<Matrix<S>, Vector<S>>> {
        let unnormed = config.wiring == Wiring::Unnormed;
        let own_norm = matches!(config.wiring, Wiring::Parallel { .. }) && self.has("attn_norm_2.weight");
        let network_norm = config.wiring == Wiring::Parallel { own_norms: true } && config.ffn.is_some();
        Ok(MixerPart {
            norm: (!unnormed).then(|| self.norm("attn_norm")).transpose()?,
            own_norm: own_norm.then(|| self.norm("attn_norm_2")).transpose()?,
            network_norm: network_norm.then(|| self.norm("ffn_norm")).transpose()?,
            mixer: self.mixer(&config.mixer)?,
            post_norm: config.post_norms.then(|| self.norm("post_attention_norm")).transpose()?,
        })
    }

    fn network_part(
        &mut self,
        index: usize,
        config: &LayerConfig,
        ffn: &FfnConfig,
    ) -> Result<NetworkPart<Matrix<S>, Vector<S>>> {
        let norm = match config.wiring {
            Wiring::Sequential { ffn_norm } => Some(self.norm(ffn_norm)?),
            Wiring::Parallel { .. } | Wiring::Unnormed => None,
        };
        Ok(NetworkPart {
            norm,
            ffn: self.ffn(index, ffn)?,
            post_norm: config.post_norms.then(|| self.norm("post_ffw_norm")).transpose()?,
        })
    }

    fn mixer(&mut self, config: &MixerConfig) -> Result<MixerWeights<Matrix<S>, Vector<S>>> {
        Ok(match config {
            MixerConfig::Attention(config) => MixerWeights::Attention(self.attention(config)?),
            MixerConfig::Latent(config) => MixerWeights::Latent(self.latent(config)?),
            MixerConfig::ShortConv(config) => MixerWeights::ShortConv(self.short_conv(config)?),
            MixerConfig::Mamba2(config) => MixerWeights::Mamba2(self.mamba2(config)?),
            MixerConfig::DeltaNet(config) => MixerWeights::DeltaNet(self.delta_net(config)?),
        })
    }

    fn attention(&mut self, config: &AttentionConfig) -> Result<AttentionWeights<Matrix<S>, Vector<S>>> {
        let AttentionConfig { n_head, n_head_kv, key_length, value_length, .. } = *config;
        let n_embd = self.config.n_embd;
        let n_query = n_head * key_length * if config.output_gate { 2 } else { 1 };
        let widths = [n_query, n_head_kv * key_length, n_head_kv * value_length];
        let [query, key, value] = if self.has("attn_qkv.weight") {
            self.parts("attn_qkv", n_embd, widths)?
        } else {
            [
                self.linear("attn_q", n_embd, widths[0])?,
                self.linear("attn_k", n_embd, widths[1])?,
                self.linear("attn_v", n_embd, widths[2])?,
            ]
        };
        let (mut query_norm, mut key_norm) = (None, None);
        if let Some(qk_norm) = config.qk_norm {
            query_norm = Some(self.head_norm("attn_q_norm", qk_norm, n_head, key_length)?);
            key_norm = Some(self.head_norm("attn_k_norm", qk_norm, n_head_kv, key_length)?);
        }
        let sinks = config.sinks.then(|| self.vector("attn_sinks.weight", &[n_head])).transpose()?;
        let output = self.linear("attn_output", n_head * value_length, n_embd)?;
        Ok(AttentionWeights { query, key, value, query_norm, key_norm, sinks, output })
    }

    fn head_norm(
        &mut self,
        name: &str,
        qk_norm: QkNorm,
        n_head: usize,
        length: usize,
    ) -> Result<NormWeights<Vector<S>>> {
        match qk_norm {
            QkNorm::EachHead => self.norm_of(name, &[length]),
            QkNorm::EachHeadOwn => self.norm_of(name, &[length, n_head]),
            QkNorm::AllHeads => self.norm_of(name, &[n_head * length]),
        }
    }

    fn latent(&mut self, config: &LatentConfig) -> Result<LatentWeights<Matrix<S>, Vector<S>>> {
        let (n_embd, n_head, rank) = (self.config.n_embd, config.attention.n_head, config.rank());
        let (nope, value_length) = (config.nope_length, config.value_length);
        let n_query = n_head * (nope + config.rope_length());
        let query = match config.query_rank {
            None => LatentQuery::Whole(self.linear("attn_q", n_embd, n_query)?),
            Some(query_rank) => LatentQuery::Compressed {
                down: self.linear("attn_q_a", n_embd, query_rank)?,
                norm: self.norm_of("attn_q_a_norm", &[query_rank])?,
                up: self.linear("attn_q_b", query_rank, n_query)?,
            },
        };
        Ok(LatentWeights {
            query,
            down: self.linear("attn_kv_a_mqa", n_embd, rank + config.rope_length())?,
            norm: self.norm_of("attn_kv_a_norm", &[rank])?,
            key_up: self.matrix_of_each_head("attn_k_b.weight", [nope, rank, n_head])?,
            value_up: self.matrix_of_each_head("attn_v_b.weight", [rank, value_length, n_head])?,
            output: self.linear("attn_output", n_head * value_length, n_embd)?,
        })
    }

    fn matrix_of_each_head(&mut self, name: &str, shape: [usize; 3]) -> Result<Vec<Matrix<S>>> {
        let all = self.matrix(name, &shape)?;
        let [_, n_rows, n_head] = shape;
        let rows = |head: usize| head * n_rows..(head + 1) * n_rows;
        Ok((0..n_head).map(|head| self.source.rows(&all, rows(head), n_rows * n_head)).collect())
    }

    fn short_conv(&mut self, config: &ShortConvConfig) -> Result<ShortConvWeights<Matrix<S>, Vector<S>>> {
        let (n_embd, n) = (self.config.n_embd, config.n_channels);
        Ok(ShortConvWeights {
            input: self.linear("shortconv.in_proj", n_embd, 3 * n)?,
            kernel: self.vector("shortconv.conv.weight", &[config.length, n])?,
            output: self.linear("shortconv.out_proj", n, n_embd)?,
        })
    }

    fn mamba2(&mut self, config: &Mamba2Config) -> Result<Mamba2Weights<Matrix<S>, Vector<S>>> {
        let Mamba2Shape { n_head, n_group, .. } = config.shape;
        let (n_embd, inner, n_channels) =
            (self.config.n_embd, config.shape.inner(), config.shape.n_channels());
        Ok(Mamba2Weights {
            input: self.linear("ssm_in", n_embd, inner + n_channels + n_head)?,
            kernel: self.vector("ssm_conv1d.weight", &[config.conv_length, n_channels])?,
            kernel_bias: self.optional_vector("ssm_conv1d.bias", &[n_channels])?,
            a: self.vector("ssm_a", &[1, n_head])?,
            d: self.vector("ssm_d", &[1, n_head])?,
            dt_bias: self.vector("ssm_dt.bias", &[n_head])?,
            norm: self.norm_of("ssm_norm", &[inner / n_group, n_group])?,
            output: self.linear("ssm_out", inner, n_embd)?,
        })
    }

    fn delta_net(&mut self, config: &DeltaNetConfig) -> Result<DeltaNetWeights<Matrix<S>, Vector<S>>> {
        let shape = config.shape;
        let (n_embd, inner, n_channels) = (self.config.n_embd, shape.inner(), shape.n_channels());
        let n_head = shape.n_value_head;
        let input = if self.has("ssm_in.weight") && !self.has("attn_qkv.weight") {
            DeltaNetInput::ByKeyHead(self.linear("ssm_in", n_embd, n_channels + inner)?)
        } else {
            DeltaNetInput::Split {
                conv: self.linear("attn_qkv", n_embd, n_channels)?,
                gate: self.linear("attn_gate", n_embd, inner)?,
            }
        };
        let rates = if self.has("ssm_ba.weight") {
            DeltaNetRates::ByKeyHead(self.linear("ssm_ba", n_embd, 2 * n_head)?)
        } else {
            DeltaNetRates::Split {
                beta: self.linear("ssm_beta", n_embd, n_head)?,
                alpha: self.linear("ssm_alpha", n_embd, n_head)?,
            }
        };
        Ok(DeltaNetWeights {
            input,
            rates,
            kernel: self.vector("ssm_conv1d.weight", &[config.conv_length, n_channels])?,
            a: self.vector("ssm_a", &[n_head])?,
            dt_bias: self.vector("ssm_dt.bias", &[n_head])?,
            norm: self.norm_of("ssm_norm", &[shape.value_dim])?,
            output: self.linear("ssm_out", inner, n_embd)?,
        })
    }

    fn ffn(&mut self, index: usize, config: &FfnConfig) -> Result<FfnWeights<Matrix<S>, Vector<S>>> {
        let (n_embd, n_ff) = (self.config.n_embd, config.n_ff);
        if let Some(experts) = &config.experts {
            return Ok(FfnWeights::Experts(Box::new(self.experts(index, n_ff, experts)?)));
        }
        let (gate, up) = match config.gate {
            Gate::Own => (Some(self.linear("ffn_gate", n_embd, n_ff)?), self.linear("ffn_up", n_embd, n_ff)?),
            Gate::Merged => {
                let [gate, up] = self.parts("ffn_up", n_embd, [n_ff, n_ff])?;
                (Some(gate), up)
            }
            Gate::None => (None, self.linear("ffn_up", n_embd, n_ff)?),
        };
        let divisors = match config.gate {
            Gate::None => self.optional_vector("ffn.act.scales", &[n_ff])?,
            Gate::Own | Gate::Merged => None,
        };
        Ok(FfnWeights::Dense(DenseWeights {
            gate,
            up,
            divisors,
            down: self.linear("ffn_down", n_ff, n_embd)?,
        }))
    }

    fn experts(
        &mut self,
        index: usize,
        n_ff: usize,
        config: &ExpertsConfig,
    ) -> Result<ExpertWeights<Matrix<S>, Vector<S>>> {
        let (n_embd, n) = (self.config.n_embd, config.n_expert);
        let shared = config.shared.map(|shared| self.shared_expert(shared)).transpose()?;
        let router = self.linear("ffn_gate_inp", n_embd, n)?;
        let choice_bias = self.optional_vector("exp_probs_b.bias", &[n])?;
        self.role = MatrixRole::Experts(index);
        let (gate, up) = if self.has("ffn_gate_up_exps.weight") {
            let all = self.matrix("ffn_gate_up_exps.weight", &[n_embd, 2 * n_ff, n])?;
            let half = |first: usize| ExpertMatrix {
                all: all.clone(),
                first,
                stride: 2 * n_ff,
                n_rows: n_ff,
                bias: None,
            };
            (half(0), half(n_ff))
        } else {
            (
                self.expert_matrix("ffn_gate_exps", n_embd, n_ff, n)?,
                self.expert_matrix("ffn_up_exps", n_embd, n_ff, n)?,
            )
        };
        let down = self.expert_matrix("ffn_down_exps", n_ff, n_embd, n)?;
        Ok(ExpertWeights { config: config.clone(), router, choice_bias, gate, up, down, shared })
    }

    fn expert_matrix(
        &mut self,
        name: &str,
        row_len: usize,
        n_rows: usize,
        n_expert: usize,
    ) -> Result<ExpertMatrix<Matrix<S>, Vector<S>>> {
        let all = self.matrix(&format!("{name}.weight"), &[row_len, n_rows, n_expert])?;
        let bias = self.optional_vector(&format!("{name}.bias"), &[n_rows, n_expert])?;
        Ok(ExpertMatrix { all, first: 0, stride: n_rows, n_rows, bias })
    }

    fn shared_expert(&mut self, config: SharedExpert) -> Result<SharedWeights<Matrix<S>, Vector<S>>> {
        let (n_embd, n_ff) = (self.config.n_embd, config.n_ff);
        let router =
            config.gated.then(|| self.matrix("ffn_gate_inp_shexp.weight", &[n_embd, 1])).transpose()?;
        Ok(SharedWeights {
            gate: self.linear("ffn_gate_shexp", n_embd, n_ff)?,
            up: self.linear("ffn_up_shexp", n_embd, n_ff)?,
            down: self.linear("ffn_down_shexp", n_ff, n_embd)?,
            router,
        })
    }

    /// Consecutive rows of one tensor, as matrices of their own.
    fn parts<const N: usize>(
        &mut self,
        name: &str,
        row_len: usize,
        widths: [usize; N],
    ) -> Result<[LinearOf<S>; N]> {
        let n_rows = widths.iter().sum();
        let all = self.matrix(&format!("{name}.weight"), &[row_len, n_rows])?;
        let bias = self.find(&format!("{name}.bias"), &[n_rows])?;
        let mut first = 0;
        let mut parts = Vec::with_capacity(N);
        for width in widths {
            let rows: Range<usize> = first..first + width;
            let bias = bias.map(|tensor| self.source.vector(tensor, rows.clone())).transpose()?;
            parts.push(Linear { matrix: self.source.rows(&all, rows, n_rows), bias });
            first += width;
        }
        Ok(parts.try_into().unwrap_or_else(|_| unreachable!("as many parts as widths")))
    }

    fn linear(&mut self, name: &str, row_len: usize, n_rows: usize) -> Result<LinearOf<S>> {
        Ok(Linear {
            matrix: self.matrix(&format!("{name}.weight"), &[row_len, n_rows])?,
            bias: self.optional_vector(&format!("{name}.bias"), &[n_rows])?,
        })
    }

    /// A norm of the hidden state.
    fn norm(&mut self, name: &str) -> Result<NormWeights<Vector<S>>> {
        self.norm_of(name, &[self.config.n_embd])
    }

    fn norm_of(&mut self, name: &str, shape: &[usize]) -> Result<NormWeights<Vector<S>>> {
        let NormConfig { kind, eps } = self.config.norm;
        Ok(NormWeights {
            kind,
            eps,
            weight: self.vector(&format!("{name}.weight"), shape)?,
            bias: self.optional_vector(&format!("{name}.bias"), shape)?,
        })
    }

    fn matrix(&mut self, name: &str, shape: &[usize]) -> Result<Matrix<S>> {
        match self.find(name, shape)? {
            Some(tensor) => self.source.matrix(tensor, self.role),
            None => self.source.absent_matrix(&self.full(name)),
        }
    }

    fn vector(&mut self, name: &str, shape: &[usize]) -> Result<Vector<S>> {
        match self.optional_vector(name, shape)? {
            Some(vector) => Ok(vector),
            None => self.source.absent_vector(&self.full(name)),
        }
    }

    fn optional_vector(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vector<S>>> {
        let len = shape.iter().product();
        self.find(name, shape)?.map(|tensor| self.source.vector(tensor, 0..len)).transpose()
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn has(&self, name: &str) -> bool {
        self.gguf.tensor(&self.full(name)).is_some()
    }

    /// The tensor, if the file has it and its shape is right; trailing dimensions of 1 do not count.
    fn find(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'g>>> {
        let name = self.full(name);
        let Some(tensor) = self.gguf.tensor(&name) else { return Ok(None) };
        let expected: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        if trim(tensor.shape()) != trim(&expected) || tensor.n_elements() == 0 {
            return Err(Error::TensorShape { name, found: tensor.shape().to_vec(), expected });
        }
        Ok(Some(tensor))
    }
}

fn trim(shape: &[u64]) -> &[u64] {
    let end = shape.iter().rposition(|&n| n != 1).map_or(0, |i| i + 1);
    &shape[..end]
}
