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
    /// Every bit pattern of a format occurs, but scales that make weights too large to sum up.
    fn random(ggml_type: GgmlType, n_blocks: usize, n_rows: usize) -> Self {
        let ops = registry::ops(ggml_type, Isa::Scalar);
        let mut random = Random(u64::from(ggml_type.id()));
        let (mut bytes, mut decoded) = (Vec::new(), Vec::new());
        let mut weights = vec![0.0; ggml_type.block_len()];
        while decoded.len() < n_blocks * n_rows * weights.len() {
            let block: Vec<u8> = (0..ggml_type.block_bytes()).map(|_| random.bits() as u8).collect();
            (ops.decode)(&block, &mut weights);
            if weights.iter().all(|weight| weight.abs() < 1e4) {
                bytes.extend(block);
                decoded.extend_from_slice(&weights);
            }
        }
        Self { ops, row_len: n_blocks * weights.len(), bytes, decoded }
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
        // Plain numbers in rows that no tile can take.
        let n_blocks = if ggml_type.is_quantized() { 5 } else { 163 };
        let weights = Weights::random(ggml_type, n_blocks, N_ROWS);
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
        for tokens in [Tokens { gemv: N_TOKENS, gemm: 0 }, Tokens { gemv: 1, gemm: N_TOKENS - 1 }] {
            let job = Job { gpu: &mut gpu, matrix: &matrix, bias: None, out: None };
            let error = nmse(&job.run(&inputs, tokens), &weights.products(&inputs));
            println!("{ggml_type}, {tokens:?}: {error:.2e}");
            assert!(error <= MAX_NMSE, "{ggml_type}: {error:.2e}");
        }
    }
}

/// A product on the device.
struct Job<'a> {
    gpu: &'a mut Gpu,
    matrix: &'a GpuMatrix,
    bias: Option<&'a [f32]>,
    /// What products are added to.
    out: Option<&'a [f32]>,
}

impl Job<'_> {
    fn run(self, inputs: &[f32], tokens: Tokens) -> Vec<f32> {
        let Self { gpu, matrix, .. } = self;
        let n_products = tokens.count() * matrix.n_rows();
        let mut buffer = |values: &[f32]| {
            let mut buffer = gpu.buffer("a test", values.len()).unwrap();
            gpu.write(values, &mut buffer).unwrap();
            buffer
        };
        let x = buffer(inputs);
        let bias = self.bias.map(&mut buffer);
        let mut out = buffer(self.out.unwrap_or(&vec![f32::NAN; n_products]));
        let job = MatmulJob {
            bias: bias.as_ref(),
            accumulate: self.out.is_some(),
            ..MatmulJob::new(matrix, &mut out)
        };
        gpu.matmul(&Input::Rows(&x), tokens, &mut [job]).unwrap();
        let mut found = vec![f32::NAN; n_products];
        gpu.read(&out, 0, &mut found).unwrap();
        found
    }
}

/// Tiles that are not full, parts of matrices, and what is added.
#[test]
fn prompts_of_any_length_multiply_as_on_the_cpu() {
    const MAX_TOKENS: usize = 130;
    let Some(mut gpu) = gpu() else { return };
    for (ggml_type, n_blocks, n_rows) in [
        (GgmlType::Q4_0, 1, 1),
        (GgmlType::F16, 32, 5),
        (GgmlType::BF16, 160, 70),
        (GgmlType::F32, 64, 66),
        (GgmlType::Q6_K, 1, 63),
        (GgmlType::Q8_0, 3, 64),
        (GgmlType::Q4_0, 7, 131),
    ] {
        let weights = Weights::random(ggml_type, n_blocks, n_rows);
        let row_len = weights.row_len;
        let matrix = weights.upload(&gpu).unwrap();
        let mut random = Random(3);
        let inputs = random.floats(MAX_TOKENS * row_len);
        let (bias, before) = (random.floats(n_rows), random.floats(MAX_TOKENS * n_rows));
        let products = weights.products(&inputs);
        let all = Tokens { gemv: 0, gemm: MAX_TOKENS };
        let whole = Job { gpu: &mut gpu, matrix: &matrix, bias: None, out: None }.run(&inputs, all);
        for (gemv, gemm) in [(0, 1), (0, 15), (2, 17), (1, 63), (0, 64), (65, 65), (0, 130)] {
            let tokens = Tokens { gemv, gemm };
            let n = tokens.count();
            let inputs = &inputs[..n * row_len];
            let found = Job { gpu: &mut gpu, matrix: &matrix, bias: None, out: None }.run(inputs, tokens);
            let error = nmse(&found, &products[..n * n_rows]);
            assert!(error <= MAX_NMSE, "{ggml_type}, {tokens:?}: {error:.2e}");
            assert!(
                found[gemv * n_rows..] == whole[gemv * n_rows..n * n_rows],
                "{ggml_type}, {tokens:?}: sums of others"
            );

            let before = &before[..n * n_rows];
            let added = Job { gpu: &mut gpu, matrix: &matrix, bias: Some(&bias), out: Some(before) }
                .run(inputs, tokens);
            let expected: Vec<f32> =
                (0..n * n_rows).map(|i| products[i] + bias[i % n_rows] + before[i]).collect();
            let error = nmse(&added, &expected);
            assert!(error <= MAX_NMSE, "{ggml_type}, {tokens:?}, added: {error:.2e}");
        }
        let some = gpu.matrix_rows(&matrix, n_rows / 2..n_rows);
        let found = Job { gpu: &mut gpu, matrix: &some, bias: None, out: None }.run(&inputs, all);
        let expected: Vec<f32> = whole.chunks(n_rows).flat_map(|row| &row[n_rows / 2..]).copied().collect();
        assert!(found == expected, "{ggml_type}: some rows");
    }
}
