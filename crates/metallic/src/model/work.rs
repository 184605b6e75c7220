//! How much work a token is: what a benchmark sets measured rates beside.

use std::ops::Range;

use metallic_gguf::{Gguf, Tensor};

use super::arch;
use super::config::ExpertsConfig;
use super::part::Parts;
use super::weights::{self, MatrixRole, WeightSource};
use crate::error::Result;

/// What a token's products with matrices of weights cost. Attention is not counted: it grows with the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenWork {
    /// In the layers, for every token. Of experts, the few that a token is sent to.
    pub layers: Products,
    /// In the output head, for a token whose logits are wanted.
    pub head: Products,
}

/// The size of some matrices that each meet one input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Products {
    /// Bytes of weights, as the file holds them.
    pub weight_bytes: u64,
    /// Multiplications, each with its addition: one for every weight.
    pub multiply_adds: u64,
}

impl TokenWork {
    /// The work that a model file's tensors make.
    ///
    /// # Errors
    /// As [`GgufLoader::plan`](crate::GgufLoader::plan).
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self> {
        let config = arch::read_config(gguf)?;
        let weights = weights::build(gguf, &config, &Parts::all(config.layers.len()), &mut Sizes)?;
        let mut work = Self::default();
        if let Some(head) = weights.head {
            work.head = head.output.matrix;
        }
        for layer in &weights.layers {
            layer.each_matrix(&mut |products| work.layers.add(*products));
            if let Some(experts) = layer.experts() {
                let ExpertsConfig { n_used, n_expert, .. } = experts.config;
                for matrix in [&experts.gate, &experts.up, &experts.down] {
                    let of_one = matrix.all.part(matrix.n_rows, matrix.stride * n_expert);
                    (0..n_used).for_each(|_| work.layers.add(of_one));
                }
            }
        }
        Ok(work)
    }
}

impl Products {
    /// That of some of the rows: all are of one size, so the division leaves nothing over.
    fn part(self, n_rows: usize, of: usize) -> Self {
        let part = |all: u64| all / of as u64 * n_rows as u64;
        Self { weight_bytes: part(self.weight_bytes), multiply_adds: part(self.multiply_adds) }
    }

    fn add(&mut self, other: Products) {
        self.weight_bytes += other.weight_bytes;
        self.multiply_adds += other.multiply_adds;
    }
}

/// Makes of every matrix its size.
struct Sizes;

impl WeightSource for Sizes {
    type Matrix = Products;
    type Vector = ();

    fn matrix(&mut self, tensor: Tensor<'_>, _: MatrixRole) -> Result<Products> {
        Ok(Products { weight_bytes: tensor.n_bytes(), multiply_adds: tensor.n_elements() })
    }

    fn rows(&self, matrix: &Products, rows: Range<usize>, of: usize) -> Products {
        matrix.part(rows.len(), of)
    }

    fn vector(&mut self, _: Tensor<'_>, _: Range<usize>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use metallic_gguf::Gguf;

    use super::*;

    #[test]
    fn the_tiny_models_work_by_hand() {
        let bytes = crate::testing::tiny_model().unwrap();
        let work = TokenWork::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        // Two layers of q and output 32 x 32, k and v 32 x 16, three matrices 32 x 64; all F32.
        let layers = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64);
        assert_eq!(work.layers, Products { weight_bytes: 4 * layers, multiply_adds: layers });
        assert_eq!(work.head, Products { weight_bytes: 4 * 32 * 259, multiply_adds: 32 * 259 });
    }
}
