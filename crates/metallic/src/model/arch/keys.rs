//! The metadata keys of one architecture, and what most architectures make of them.

use metallic_gguf::{FromValue, Gguf, MAX_LAYERS, Metadata, Value, ValueType};

use crate::error::{Error, Result};
use crate::model::config::{
    Activation, AttentionConfig, ExpertGroups, ExpertsConfig, FfnConfig, Gate, LayerConfig, MixerConfig,
    ModelConfig, NormConfig, NormKind, RopeConfig, RopePairs, Scoring, SharedExpert, Yarn,
};

/// The widest of anything in a model, far above every model's: products of two widths can't overflow.
const MAX_WIDTH: usize = 1 << 24;

/// The metadata of one architecture: `block_count` stands for `llama.block_count`.
pub(super) struct Keys<'a, 'g> {
    gguf: &'a Gguf<'g>,
    metadata: Metadata<'a>,
    architecture: &'a str,
    n_vocab: usize,
}

/// Query heads and key heads of each layer.
pub(super) struct Heads {
    n_embd: usize,
    n_head: Vec<usize>,
    n_head_kv: Vec<usize>,
}

/// Heads of a mixer with a state, and groups of them that share keys.
pub(super) struct StateHeads {
    pub(super) n_head: usize,
    pub(super) head_dim: usize,
    pub(super) n_group: usize,
}

impl Heads {
    /// Key heads of a layer; 0 where it has no attention.
    pub(super) fn n_head_kv(&self, layer: usize) -> usize {
        self.n_head_kv[layer]
    }
}

impl<'a, 'g> Keys<'a, 'g> {
    /// The vocabulary is as large as the embedding has rows; so the file's list of tokens, or its key, must be.
    pub(super) fn new(gguf: &'a Gguf<'g>, architecture: &'a str) -> Result<Self> {
        let name = "token_embd.weight";
        let tensor = gguf.tensor(name).ok_or_else(|| Error::missing_tensor(name))?;
        let n_vocab =
            usize::try_from(tensor.n_rows()).map_err(|_| Error::TooLarge { what: "the token embedding" })?;
        let keys = Self { gguf, metadata: gguf.metadata(), architecture, n_vocab };
        let tokens = "tokenizer.ggml.tokens";
        let (key, n_tokens) = match keys.metadata.get(tokens) {
            Some(Value::Array(list)) => (tokens.to_owned(), Some(list.len())),
            _ => (keys.full("vocab_size"), keys.optional("vocab_size")?),
        };
        if let Some(n_tokens) = n_tokens.filter(|n| *n != n_vocab) {
            return Err(Error::Vocabulary { key, n_tokens, n_rows: n_vocab });
        }
        Ok(keys)
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn required<T: FromValue<'a>>(&self, key: &str) -> Result<T> {
        Ok(self.metadata.required(&self.full(key))?)
    }

    pub(super) fn optional<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>> {
        Ok(self.metadata.optional(&self.full(key))?)
    }

    /// One value for each layer, from a scalar or an array.
    fn per_layer<T: FromValue<'a> + Clone>(&self, key: &str) -> Result<Option<Vec<T>>> {
        Ok(self.metadata.per_layer(&self.full(key), self.block_count()?)?)
    }

    pub(super) fn invalid(&self, key: &str, value: impl ToString, rule: &'static str) -> Error {
        Error::Config { key: self.full(key), value: value.to_string(), rule }
    }

    /// Whether the file has a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.metadata.get(&self.full(key)).is_some()
    }

    /// Whether the file has a tensor: for what a publisher leaves to the model.
    pub(super) fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// A count that must be at least one.
    pub(super) fn count(&self, key: &str) -> Result<usize> {
        match self.required(key)? {
            0 => Err(self.invalid(key, 0, "it must be at least 1")),
            n => Ok(n),
        }
    }

    /// A count of values, heads or layers that some model could have.
    pub(super) fn width(&self, key: &str) -> Result<usize> {
        self.checked_width(key, self.required(key)?)
    }

    /// The same where the key may be absent.
    pub(super) fn optional_width(&self, key: &str) -> Result<Option<usize>> {
        self.optional(key)?.map(|n| self.checked_width(key, n)).transpose()
    }

    fn checked_width(&self, key: &str, n: usize) -> Result<usize> {
        if (1..=MAX_WIDTH).contains(&n) {
            Ok(n)
        } else {
            Err(self.invalid(key, n, "it must be at least 1, and no model has more than 16777216"))
        }
    }

    /// A positive number, 1 where the key is absent or 0.
    pub(super) fn factor(&self, key: &str) -> Result<f32> {
        match self.optional::<f32>(key)?.unwrap_or(0.0) {
            0.0 => Ok(1.0),
            factor if factor.is_finite() && factor > 0.0 => Ok(factor),
            factor => Err(self.invalid(key, factor, "it must be a positive number")),
        }
    }

    /// Layers in the file, those that only guess further tokens among them.
    fn block_count(&self) -> Result<usize> {
        match self.count("block_count")? {
            n if n <= MAX_LAYERS => Ok(n),
            n => Err(self.invalid("block_count", n, "no model has more than 65536 layers")),
        }
    }

    /// Layers that run.
    pub(super) fn n_layers(&self) -> Result<usize> {
        let (n, key) = (self.block_count()?, "nextn_predict_layers");
        let n_guess = self.optional(key)?.unwrap_or(0);
        n.checked_sub(n_guess)
            .filter(|n| *n > 0)
            .ok_or_else(|| self.invalid(key, n_guess, "it must be below block_count"))
    }

    /// A model of these layers.
    pub(super) fn model(
        &self,
        norm: NormKind,
        layer: impl FnMut(usize) -> Result<LayerConfig>,
    ) -> Result<ModelConfig> {
        let eps = match norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let context_length = self.count("context_length")?;
        Ok(ModelConfig {
            architecture: self.architecture.to_owned(),
            context_length,
            original_context: self.original_context::<usize>()?,
            n_embd: self.width("embedding_length")?,
            n_vocab: self.n_vocab,
            norm: NormConfig { kind: norm, eps: self.epsilon(eps)? },
            embedding_scale: 1.0,
            embedding_norm: false,
            learned_positions: false,
            output_norm: "output_norm",
            logit_scale: 1.0,
            logit_softcap: None,
            layers: (0..self.n_layers()?).map(layer).collect::<Result<_>>()?,
        })
    }

    /// The context that a model was first trained for: that of the file, unless it says another.
    fn original_context<T: FromValue<'a>>(&self) -> Result<T> {
        let key = "rope.scaling.original_context_length";
        if self.has(key) {
            self.count(key)?;
            return self.required(key);
        }
        self.required("context_length")
    }

    fn epsilon(&self, key: &str) -> Result<f32> {
        let eps: f32 = self.required(key)?;
        if eps.is_finite() && eps >= 0.0 {
            Ok(eps)
        } else {
            Err(self.invalid(key, eps, "it must be a positive number"))
        }
    }

    /// A decoder-only transformer with RMS norms, grouped attention and a gated network: what most architectures start
    /// from.
    pub(super) fn decoder(&self, pairs: RopePairs, activation: Activation) -> Result<ModelConfig> {
        self.transformer(NormKind::Rms, Some(pairs), activation, Gate::Own)
    }

    /// The same with other norms, without rotary positions, or with another network.
    pub(super) fn transformer(
        &self,
        norm: NormKind,
        pairs: Option<RopePairs>,
        activation: Activation,
        gate: Gate,
    ) -> Result<ModelConfig> {
        let heads = self.heads()?;
        self.model(norm, |i| {
            let mixer = MixerConfig::Attention(self.attention(&heads, i, pairs)?);
            Ok(LayerConfig::new(mixer, Some(self.network(i, activation, gate)?)))
        })
    }

    /// The feed-forward network of a layer.
    pub(super) fn network(&self, layer: usize, activation: Activation, gate: Gate) -> Result<FfnConfig> {
        let key = "feed_forward_length";
        let lengths = self.per_layer(key)?;
        let lengths = lengths.ok_or_else(|| metallic_gguf::Error::MissingKey { key: self.full(key) })?;
        Ok(FfnConfig { n_ff: self.checked_width(key, lengths[layer])?, activation, gate, experts: None })
    }

    /// Heads of all layers.
    pub(super) fn heads(&self) -> Result<Heads> {
        let n_embd = self.width("embedding_length")?;
        let key = "attention.head_count";
        let n_head: Vec<usize> =
            self.per_layer(key)?.ok_or_else(|| metallic_gguf::Error::MissingKey { key: self.full(key) })?;
        let n_head_kv = self.per_layer("attention.head_count_kv")?.unwrap_or_else(|| n_head.clone());
        Ok(Heads { n_embd, n_head, n_head_kv })
    }

    /// The attention of a layer, with rotary positions where `pairs` says of which kind.
    pub(super) fn attention(
        &self,
        heads: &Heads,
        layer: usize,
        pairs: Option<RopePairs>,
    ) -> Result<AttentionConfig> {
        let n_head = self.checked_width("attention.head_count", heads.n_head[layer])?;
        let n_head_kv = self.checked_width("attention.head_count_kv", heads.n_head_kv[layer])?;
        if !n_head.is_multiple_of(n_head_kv) {
            let rule = "it must divide attention.head_count";
            return Err(self.invalid("attention.head_count_kv", n_head_kv, rule));
        }
        let length = |key| self.checked_width(key, self.optional(key)?.unwrap_or(heads.n_embd / n_head));
        let (key_length, value_length) = (length("attention.key_length")?, length("attention.value_length")?);
        Ok(AttentionConfig {
            n_head,
            n_head_kv,
            key_length,
            value_length,
            scale: 1.0 / (key_length as f32).sqrt(),
            temperature: None,
            window: None,
            softcap: None,
            alibi: None,
            sinks: false,
            rope: pairs.map(|pairs| self.rope(pairs, self.n_rot(key_length)?)).transpose()?,
            qk_norm: None,
            clamp: None,
            output_gate: false,
        })
    }

    /// How many values of a head turn.
    pub(super) fn n_rot(&self, key_length: usize) -> Result<usize> {
        let n_rot = self.optional("rope.dimension_count")?.unwrap_or(key_length);
        if n_rot > key_length || !n_rot.is_multiple_of(2) {
            let rule = "it must be even and no longer than a head";
            return Err(self.invalid("rope.dimension_count", n_rot, rule));
        }
        Ok(n_rot)
    }

    pub(super) fn rope(&self, pairs: RopePairs, n_rot: usize) -> Result<RopeConfig> {
        let mut rope = RopeConfig {
            pairs,
            n_rot,
            freq_base: self.optional("rope.freq_base")?.unwrap_or(10_000.0),
            freq_scale: 1.0,
            attn_factor: self.optional("rope.scaling.attn_factor")?.unwrap_or(1.0),
            yarn: None,
        };
        let factor = match self.optional::<f32>("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.optional("rope.scale_linear")?.unwrap_or(0.0), // what files of 2023 call it
        };
        if !factor.is_finite() || factor < 0.0 {
            return Err(self.invalid("rope.scaling.factor", factor, "it must be a positive number"));
        }
        let kind: &str = self.optional("rope.scaling.type")?.unwrap_or("linear");
        if factor == 0.0 || ["none", "longrope"].contains(&kind) {
            return Ok(rope); // 0 stands for "not scaled" in files; long contexts have factors in a tensor
        }
        rope.freq_scale = 1.0 / factor;
        match kind {
            "linear" => {}
            "yarn" => {
                rope.yarn = Some(Yarn {
                    original_context: self.original_context()?,
                    ext_factor: self.optional("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                    beta_fast: self.optional("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.optional("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                });
                if let Some(factor) = self.optional("rope.scaling.yarn_attn_factor")? {
                    rope.attn_factor = factor;
                }
            }
            other => {
                let rule = "known are none, linear, yarn and longrope";
                return Err(self.invalid("rope.scaling.type", other, rule));
            }
        }
        Ok(rope)
    }

    /// Which layers see only a window: `attention.sliding_window_pattern` has a flag for each layer, or `n`
    /// for "every `n`-th layer sees all"; `default` is such an `n`.
    pub(super) fn window_pattern(&self, n_layers: usize, default: usize) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        let Some(Value::Array(flags)) = self.metadata.get(&self.full(key)) else {
            let n = self.optional(key)?.unwrap_or(default);
            return Ok((1..=n_layers).map(|layer| n == 0 || !layer.is_multiple_of(n)).collect());
        };
        self.flags(key, flags.element_type())
    }

    /// A flag for each layer, as booleans or numbers.
    fn flags(&self, key: &str, element_type: ValueType) -> Result<Vec<bool>> {
        match element_type {
            ValueType::Bool => Ok(self.per_layer(key)?.unwrap_or_default()),
            _ => {
                let flags = self.per_layer::<u32>(key)?.unwrap_or_default();
                Ok(flags.into_iter().map(|flag| flag != 0).collect())
            }
        }
    }

    /// Which layers have a state instead of attention: `attention.recurrent_layers` has a flag for each, or every
    /// `full_attention_interval`-th has attention.
    pub(super) fn recurrent_layers(&self, n_layers: usize) -> Result<Vec<bool>> {
        let key = "attention.recurrent_layers";
        if let Some(Value::Array(flags)) = self.metadata.get(&self.full(key)) {
            return self.flags(key, flags.element_type());
        }
        let key = "full_attention_interval";
        let interval = self.optional(key)?.unwrap_or(4_usize);
        if interval == 0 {
            return Err(self.invalid(key, 0, "it must be at least 1"));
        }
        Ok((1..=n_layers).map(|layer| !layer.is_multiple_of(interval)).collect())
    }

    /// Positions that a query sees in windowed layers; `None` where the file says 0 or nothing.
    pub(super) fn window(&self) -> Result<Option<usize>> {
        Ok(self.optional("attention.sliding_window")?.filter(|window| *window > 0))
    }

    /// The experts, where the file says that there are any; with the softmax of all as shares that sum to one.
    pub(super) fn experts(&self) -> Result<Option<ExpertsConfig>> {
        let n_expert = self.optional("expert_count")?.unwrap_or(0);
        if n_expert == 0 {
            return Ok(None);
        }
        let n_expert = self.checked_width("expert_count", n_expert)?;
        let n_used = self.count("expert_used_count")?;
        if n_used > n_expert {
            return Err(self.invalid("expert_used_count", n_used, "it can't exceed expert_count"));
        }
        Ok(Some(ExpertsConfig {
            n_expert,
            n_used,
            scoring: Scoring::Softmax,
            normalize: true,
            scale: self.factor("expert_weights_scale")?,
            groups: self.expert_groups(n_expert, n_used)?,
            shared: None,
        }))
    }

    fn expert_groups(&self, n_expert: usize, n_used: usize) -> Result<Option<ExpertGroups>> {
        let key = "expert_group_count";
        let n_group = self.optional(key)?.unwrap_or(0);
        if n_group <= 1 {
            return Ok(None);
        }
        if !n_expert.is_multiple_of(n_group) {
            return Err(self.invalid(key, n_group, "it must divide expert_count"));
        }
        let groups = ExpertGroups { n_group, n_used: self.count("expert_group_used_count")? };
        if groups.n_used > n_group || n_used > groups.n_used * (n_expert / n_group) {
            let rule =
                "it can't exceed expert_group_count, and so many groups must have expert_used_count experts";
            return Err(self.invalid("expert_group_used_count", groups.n_used, rule));
        }
        Ok(Some(groups))
    }

    /// Experts of an architecture that always has them.
    pub(super) fn required_experts(&self) -> Result<ExpertsConfig> {
        self.count("expert_count")?;
        self.experts()?.ok_or_else(|| self.invalid("expert_count", 0, "it must be at least 1"))
    }

    /// The same with shares that sum to one only where the file says so, and with shared experts, which are as one of
    /// their widths together.
    pub(super) fn experts_and_shared(&self, scoring: Scoring) -> Result<ExpertsConfig> {
        let mut experts = self.required_experts()?;
        experts.scoring = self.scoring(scoring)?;
        experts.normalize = self.optional("expert_weights_norm")?.unwrap_or(false);
        let n_shared = self.optional("expert_shared_count")?.filter(|n| *n > 0_usize);
        if let Some(n_shared) = n_shared {
            let n_ff = self.width("expert_feed_forward_length")?.saturating_mul(n_shared);
            let n_ff = self.checked_width("expert_shared_count", n_ff)?;
            experts.shared = Some(SharedExpert { n_ff, gated: false });
        }
        Ok(experts)
    }

    /// The heads of a mixer with a state.
    pub(super) fn state_heads(&self) -> Result<StateHeads> {
        let (inner, n_head) = (self.width("ssm.inner_size")?, self.width("ssm.time_step_rank")?);
        let n_group = self.width("ssm.group_count")?;
        if !inner.is_multiple_of(n_head) {
            return Err(self.invalid("ssm.time_step_rank", n_head, "it must divide ssm.inner_size"));
        }
        if !n_head.is_multiple_of(n_group) {
            return Err(self.invalid("ssm.group_count", n_group, "it must divide ssm.time_step_rank"));
        }
        Ok(StateHeads { n_head, head_dim: inner / n_head, n_group })
    }

    /// What the file says of scoring, else `default`.
    pub(super) fn scoring(&self, default: Scoring) -> Result<Scoring> {
        let key = "expert_gating_func";
        match self.optional::<u32>(key)?.unwrap_or(0) {
            0 => Ok(default),
            1 => Ok(Scoring::Softmax),
            2 => Ok(Scoring::Sigmoid),
            3 => Ok(Scoring::SoftmaxOfUsed),
            other => {
                Err(self.invalid(key, other, "known are 1 (softmax), 2 (sigmoid), 3 (softmax of the used)"))
            }
        }
    }

    /// Width of an expert: of its own key, or that of the network.
    pub(super) fn set_experts(&self, config: &mut ModelConfig, experts: &ExpertsConfig) -> Result<()> {
        let n_ff = self.optional_width("expert_feed_forward_length")?;
        let n_dense = self.optional("leading_dense_block_count")?.unwrap_or(0);
        for ffn in config.layers.iter_mut().skip(n_dense).filter_map(|layer| layer.ffn.as_mut()) {
            ffn.n_ff = n_ff.unwrap_or(ffn.n_ff);
            ffn.experts = Some(experts.clone());
        }
        Ok(())
    }
}

/// What every forward pass relies on, whatever the architecture.
pub(super) fn validate(config: &ModelConfig) -> Result<()> {
    let positive = |key: &str, value: f32| {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        let key = format!("{}.{key}", config.architecture);
        Err(Error::Config { key, value: value.to_string(), rule: "it must be a positive number" })
    };
    positive("embedding_scale", config.embedding_scale)?;
    positive("logit_scale", config.logit_scale)?;
    for layer in &config.layers {
        positive("residual_scale", layer.residual_scale)?;
        let Some(attention) = layer.mixer.attention() else { continue };
        positive("attention.scale", attention.scale)?;
        if let Some(rope) = &attention.rope {
            positive("rope.freq_base", rope.freq_base)?;
            positive("rope.scaling.attn_factor", rope.attn_factor)?;
        }
        for (key, cap) in [
            ("attn_logit_softcapping", attention.softcap),
            ("attention.clamp_kqv", attention.clamp),
            ("attention.max_alibi_bias", attention.alibi),
        ] {
            cap.map_or(Ok(()), |cap| positive(key, cap))?;
        }
        if let Some(temperature) = attention.temperature {
            positive("attention.temperature_scale", temperature.scale)?;
        }
    }
    config.logit_softcap.map_or(Ok(()), |cap| positive("final_logit_softcapping", cap))
}
