//! Matrices of random weights, in any type.

use metallic_gguf::GgmlType;
use metallic_kernels::{Isa, registry};

use super::computation::random;
use crate::memory::{MatrixBytes, MatrixData, SharedBytes};

/// Rows of weights.
#[derive(Clone)]
pub(super) struct Weights {
    pub(super) ggml_type: GgmlType,
    pub(super) row_len: usize,
    pub(super) n_rows: usize,
    bytes: Vec<u8>,
}

/// Weights are smaller, so that sums of them are floats: those of blocks, and others, which may be large integers.
const MAX_WEIGHT: [f32; 2] = [1e4, 1e20];

impl Weights {
    /// Numbers between -1 and 1 where a type has such of each weight by itself, else blocks of [any bits](Self::patterns).
    pub(super) fn random(ggml_type: GgmlType, row_len: usize, n_rows: usize) -> Self {
        let Some(encode) = registry::ops(ggml_type, Isa::Scalar).encode.filter(|_| !ggml_type.is_quantized())
        else {
            return Self::patterns(ggml_type, row_len, n_rows);
        };
        let mut bytes = vec![0; row_len * ggml_type.block_bytes() * n_rows];
        encode(&random(10, row_len * n_rows), &mut bytes);
        Self { ggml_type, row_len, n_rows, bytes }
    }

    /// Blocks of any bits that stand for no weights too large to sum up: every pattern of a format occurs.
    pub(super) fn patterns(ggml_type: GgmlType, row_len: usize, n_rows: usize) -> Self {
        let decode = registry::ops(ggml_type, Isa::Scalar).decode;
        let (block_bytes, n_blocks) = (ggml_type.block_bytes(), row_len / ggml_type.block_len() * n_rows);
        let max_weight = MAX_WEIGHT[usize::from(!ggml_type.is_quantized())];
        let (mut bytes, mut weights) = (Vec::new(), vec![0.0; ggml_type.block_len()]);
        for seed in ggml_type.id().. {
            // The upper bits of a number are the random ones.
            let bits = random(seed, block_bytes * n_blocks).into_iter().map(|x| ((x + 1.0) * 128.0) as u8);
            for block in bits.collect::<Vec<u8>>().chunks_exact(block_bytes) {
                decode(block, &mut weights);
                if weights.iter().all(|weight| weight.abs() < max_weight) {
                    bytes.extend_from_slice(block);
                }
            }
            if bytes.len() >= block_bytes * n_blocks {
                break;
            }
        }
        bytes.truncate(block_bytes * n_blocks);
        Self { ggml_type, row_len, n_rows, bytes }
    }

    /// These floats.
    pub(super) fn floats(row_len: usize, floats: &[f32]) -> Self {
        let bytes = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { ggml_type: GgmlType::F32, row_len, n_rows: floats.len() / row_len, bytes }
    }

    /// What they stand for.
    pub(super) fn decoded(&self) -> Vec<f32> {
        let mut decoded = vec![0.0; self.row_len * self.n_rows];
        (registry::ops(self.ggml_type, Isa::Scalar).decode)(&self.bytes, &mut decoded);
        decoded
    }

    /// The same, as floats.
    pub(super) fn as_floats(&self) -> Self {
        Self::floats(self.row_len, &self.decoded())
    }

    /// As a backend takes them.
    pub(super) fn data(&self) -> MatrixData {
        let Self { ggml_type, row_len, n_rows, bytes } = self.clone();
        MatrixData { ggml_type, row_len, n_rows, bytes: MatrixBytes::in_memory(SharedBytes::new(bytes)) }
    }

    /// The first `n_here` rows as a backend takes them, and the others' bytes.
    pub(super) fn divided(&self, n_here: usize) -> (MatrixData, MatrixBytes) {
        let Self { ggml_type, row_len, n_rows, bytes } = self.clone();
        let bytes = SharedBytes::new(bytes);
        let end = bytes.len() / n_rows * n_here;
        let [here, more] = [0..end, end..bytes.len()].map(|range| MatrixBytes::in_memory(bytes.slice(range)));
        (MatrixData { ggml_type, row_len, n_rows: n_here, bytes: here }, more)
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.bytes.len() / self.n_rows
    }
}
