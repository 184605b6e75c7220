//! Which tensors of a file a model needs, which it lacks, and which no code uses.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use metallic_gguf::{ByteOrder, GgmlType, Gguf, Tensor};

use super::config::ModelConfig;
use super::part::Parts;
use super::unused;
use super::weights::{self, MatrixRole, RopeFactors, WeightSource};
use crate::error::{Error, Nearest, Result};

/// A matrix of weights in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightMatrix {
    /// The tensor.
    pub name: String,
    /// What it is for.
    pub(crate) role: MatrixRole,
    /// Type of the weights.
    pub ggml_type: GgmlType,
    /// Its bytes in the file.
    pub bytes: u64,
    /// Weights in it.
    pub n_weights: u64,
    /// Its rows, each of which makes one value of a product.
    pub n_rows: u64,
    /// How much of it a token uses.
    pub usage: Usage,
}

impl WeightMatrix {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> u64 {
        self.bytes / self.n_rows
    }
}

/// How much of a matrix a token uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// All of it.
    Whole,
    /// All of it, if the token's logits are wanted.
    Logits,
    /// Some of many experts, which are equal parts.
    Experts {
        /// Those that a token is sent to.
        n_used: u64,
        /// All of them.
        n_expert: u64,
    },
    /// A row.
    Row,
}

/// The first pass over the weights: which there are, and how large.
pub(crate) struct Census<'c> {
    config: &'c ModelConfig,
    /// Those that can be used as the file holds them, in the order in which they are looked for.
    pub(crate) matrices: Vec<WeightMatrix>,
    /// Those that are copied, because the file has the other byte order.
    pub(crate) copied: Vec<WeightMatrix>,
    /// Bytes of norms and biases, as floats.
    pub(crate) vector_bytes: u64,
    pub(crate) rope_factors: RopeFactors<()>,
    used: HashSet<String>,
    missing: Vec<String>,
}

impl<'c> Census<'c> {
    /// Of those parts of a model, which a file should hold.
    ///
    /// # Errors
    /// All tensors that it lacks, one of another shape, or one that is part of a weight and that no code uses.
    pub(crate) fn of(gguf: &Gguf<'_>, config: &'c ModelConfig, parts: &Parts) -> Result<Self> {
        let census = Self::taken(gguf, config, parts)?;
        unused::refuse_parts(&census, gguf)?;
        if census.missing.is_empty() {
            Ok(census)
        } else {
            Err(Error::MissingTensors { names: census.missing })
        }
    }

    /// The same, with the tensors that the file lacks in a list of their own.
    fn taken(gguf: &Gguf<'_>, config: &'c ModelConfig, parts: &Parts) -> Result<Self> {
        let mut census = Self {
            config,
            matrices: Vec::new(),
            copied: Vec::new(),
            vector_bytes: 0,
            rope_factors: RopeFactors::None,
            used: HashSet::new(),
            missing: Vec::new(),
        };
        census.rope_factors = weights::build(gguf, config, parts, &mut census)?.rope_factors;
        Ok(census)
    }

    /// How much of a matrix of this role a token uses.
    fn usage(&self, role: MatrixRole) -> Usage {
        let experts =
            |layer: usize| self.config.layers[layer].ffn.as_ref().and_then(|ffn| ffn.experts.as_ref());
        match role {
            MatrixRole::Layer(_) => Usage::Whole,
            MatrixRole::Experts(layer) => experts(layer).map_or(Usage::Whole, |experts| Usage::Experts {
                n_used: experts.n_used as u64,
                n_expert: experts.n_expert as u64,
            }),
            MatrixRole::Head => Usage::Logits,
            MatrixRole::Embedding => Usage::Row,
        }
    }

    /// Whether the model has a use for a tensor.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.used.contains(name)
    }

    /// Names of tensors that the model has no use for.
    pub(crate) fn unused<'a>(&'a self, gguf: &'a Gguf<'_>) -> impl Iterator<Item = &'a str> {
        gguf.tensors().map(|tensor| tensor.name()).filter(|name| !self.used.contains(*name))
    }
}

impl WeightSource for Census<'_> {
    type Matrix = ();
    type Vector = ();

    fn matrix(&mut self, tensor: Tensor<'_>, role: MatrixRole) -> Result<()> {
        self.used.insert(tensor.name().to_owned());
        let matrix = WeightMatrix {
            name: tensor.name().to_owned(),
            role,
            ggml_type: tensor.ggml_type(),
            bytes: tensor.n_bytes(),
            n_weights: tensor.n_elements(),
            n_rows: tensor.n_rows(),
            usage: self.usage(role),
        };
        match tensor.byte_order() {
            ByteOrder::Little => self.matrices.push(matrix),
            ByteOrder::Big => self.copied.push(matrix),
        }
        Ok(())
    }

    fn rows(&self, (): &(), _: Range<usize>, _: usize) {}

    fn vector(&mut self, tensor: Tensor<'_>, values: Range<usize>) -> Result<()> {
        self.used.insert(tensor.name().to_owned());
        self.vector_bytes += (values.len() * size_of::<f32>()) as u64;
        Ok(())
    }

    fn absent_matrix(&mut self, name: &str) -> Result<()> {
        self.missing.push(name.to_owned());
        Ok(())
    }

    fn absent_vector(&mut self, name: &str) -> Result<()> {
        self.absent_matrix(name)
    }
}

impl Nearest {
    /// Of the architectures of a table, for a file of architecture `name`; none if no one can read its keys.
    pub(super) fn find(
        gguf: &Gguf<'_>,
        name: &str,
        table: impl Iterator<Item = (&'static str, Result<ModelConfig>)>,
    ) -> Option<Self> {
        let like = |known: &str| known.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        let candidates = table.filter_map(|(known, config)| Self::of(gguf, known, &config.ok()?));
        // Among equals, the one whose name begins most like the file's.
        candidates.min_by_key(|nearest| {
            (nearest.missing.len() + nearest.unused.len(), std::cmp::Reverse(like(nearest.name)))
        })
    }

    /// `None` where a tensor has another shape than this architecture's.
    fn of(gguf: &Gguf<'_>, name: &'static str, config: &ModelConfig) -> Option<Self> {
        let census = Census::taken(gguf, config, &Parts::all(config.layers.len())).ok()?;
        let missing = of_layers(census.missing.iter().map(String::as_str));
        let unused = of_layers(census.unused(gguf));
        Some(Self { name, missing, unused })
    }
}

/// The names, with `*` for the layers, each once.
pub(super) fn of_layers<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(of_all_layers).collect::<BTreeSet<_>>().into_iter().collect()
}

/// `blk.*.attn_q.weight` for `blk.7.attn_q.weight`.
fn of_all_layers(name: &str) -> String {
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, rest)) if layer.bytes().all(|byte| byte.is_ascii_digit()) => format!("blk.*.{rest}"),
        _ => name.to_owned(),
    }
}
