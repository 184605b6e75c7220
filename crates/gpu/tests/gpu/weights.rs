//! Weights of every type: a kernel decodes what the CPU decodes, and products are those of the decoded rows.

use metallic::backend::{Backend, Input, MatmulJob, Tokens};
use metallic::memory::{MatrixBytes, MatrixData, SharedBytes};
use metallic::{GgmlType, Isa};
use metallic_gpu::{Gpu, GpuMatrix};
use metallic_kernels::{QuantOps, registry};

use crate::{gpu, nmse};

/// Both sides multiply the same floats: what differs is the order of sums.
const MAX_NMSE: f64 = 1e-10;

/// Types that no model has its matrices in.
const NOT_OF_WEIGHTS: [GgmlType; 7] = [
    GgmlType::Q8_1,
    GgmlType::Q8_K,
    GgmlType::I8,
    GgmlType::I16,
    GgmlType::I32,
    GgmlType::I64,
    GgmlType::F64,
];

/// A matrix of random blocks, and what the CPU decodes them to.
struct Weights {
    ops: QuantOps,
    row_len: usize,
    bytes: Vec<u8>,
    decoded: Vec<f32>,
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between -1 and 1.
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

impl Weights {
    /// Every bit pattern of a format occurs, but scales that make weights too large to sum up. Rows are `n_blocks` blocks
    /// or, of plain numbers, so many times 32 and some more.
    fn random(ggml_type: GgmlType, n_blocks: usize, n_rows: usize) -> Self {
        let ops = registry::ops(ggml_type, Isa::Scalar);
        let in_row = if ggml_type.is_quantized() { n_blocks } else { 32 * n_blocks + 3 };
        let mut random = Random(u64::from(ggml_type.id()));
        let (mut bytes, mut decoded) = (Vec::new(), Vec::new());
        let mut weights = vec![0.0; ggml_type.block_len()];
        while decoded.len() < in_row * n_rows * weights.len() {
            let block: Vec<u8> = (0..ggml_type.block_bytes()).map(|_| random.bits() as u8).collect();
            (ops.decode)(&block, &mut weights);
            if weights.iter().all(|weight| weight.abs() < 1e4) {
                bytes.extend(block);
                decoded.extend_from_slice(&weights);
            }
        }
        Self { ops, row_len: in_row * weights.len(), bytes, decoded }
    }

    fn n_rows(&self) -> usize {
        self.decoded.len() / self.row_len
    }

    fn upload(&self, gpu: &Gpu) -> metallic::Result<GpuMatrix> {
        let bytes = MatrixBytes::in_memory(SharedBytes::new(self.bytes.clone()));
        let (ggml_type, row_len, n_rows) = (self.ops.ggml_type, self.row_len, self.n_rows());
        gpu.matrix(MatrixData { ggml_type, row_len, n_rows, bytes })
    }

    /// Products with each row of `x`.
    fn products(&self, x: &[f32]) -> Vec<f32> {
        let dot = |row: &[f32], x: &[f32]| {
            row.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>() as f32
        };
        let rows = || self.decoded.chunks(self.row_len);
        x.chunks(self.row_len).flat_map(|x| rows().map(|row| dot(row, x))).collect()
    }
}

#[test]
fn every_type_decodes_and_multiplies_as_on_the_cpu() {
    const N_ROWS: usize = 37;
    const N_TOKENS: usize = 3;
    for &ggml_type in GgmlType::ALL.iter().filter(|ggml_type| !NOT_OF_WEIGHTS.contains(ggml_type)) {
        let Some(mut gpu) = gpu() else { return };
        let weights = Weights::random(ggml_type, 5, N_ROWS);
        let row_len = weights.row_len;
        let matrix = weights.upload(&gpu).unwrap();

        let ids: Vec<u32> = (0..N_ROWS as u32).collect();
        let mut rows = gpu.buffer("rows", N_ROWS * row_len).unwrap();
        gpu.embed(&matrix, &ids, 1.0, &mut rows).unwrap();
        let mut found = vec![f32::NAN; N_ROWS * row_len];
        gpu.read(&rows, 0, &mut found).unwrap();
        for (i, (found, expected)) in found.iter().zip(&weights.decoded).enumerate() {
            // A device may have no subnormal floats.
            let same = found == expected || (found - expected).abs() < f32::MIN_POSITIVE;
            assert!(same, "{ggml_type} weight {i}: {found} is not {expected}");
        }

        let inputs = Random(7).floats(N_TOKENS * row_len);
        let mut x = gpu.buffer("x", inputs.len()).unwrap();
        gpu.write(&inputs, &mut x).unwrap();
        let mut out = gpu.buffer("products", N_TOKENS * N_ROWS).unwrap();
        let tokens = Tokens { gemv: N_TOKENS, gemm: 0 };
        gpu.matmul(&Input::Rows(&x), tokens, &mut [MatmulJob::new(&matrix, &mut out)]).unwrap();
        let mut found = vec![f32::NAN; N_TOKENS * N_ROWS];
        gpu.read(&out, 0, &mut found).unwrap();
        let error = nmse(&found, &weights.products(&inputs));
        println!("{ggml_type}: {error:.2e}");
        assert!(error <= MAX_NMSE, "{ggml_type}: {error:.2e}");
    }
}
