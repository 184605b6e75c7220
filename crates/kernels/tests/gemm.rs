//! Products of many tokens in tiles: every format on every instruction set against plain sums.

use metallic_kernels::activations::{Q8Block, quantize_q8};
use metallic_kernels::matmul::{ActivationBuf, Input, MatmulJob, Matrix, Tokens, matmul};
use metallic_kernels::registry::ops;
use metallic_kernels::{Dot, GgmlType, Isa, QuantOps, ThreadPool};

mod common;
use common::{Random, exact_isas, is_sane, random_rows};

/// What the products of a matrix must be, and how near they must come: sums in f64 of the weights times
/// the activations that the kernel is given. The integers in between are exact, so what remains is the
/// rounding of a sum of floats, one or two a block.
struct Expected {
    /// The sum and its bound, row after row for each token.
    sums: Vec<(f64, f64)>,
    n_rows: usize,
}

/// The same for each instruction set.
struct OnEachIsa {
    others: Expected,
    /// Of weights and activations as bfloat16, where this CPU multiplies them so.
    amx: Option<Expected>,
}

impl OnEachIsa {
    fn new(ops: &QuantOps, rows: &[u8], row_len: usize, x: &[f32]) -> Self {
        let in_bf16 =
            ops.ggml_type.block_len() > 1 || [GgmlType::BF16, GgmlType::F16].contains(&ops.ggml_type);
        let has_amx = Isa::available().iter().any(|isa| isa.name() == "amx");
        let amx = has_amx && in_bf16 && row_len.is_multiple_of(32);
        OnEachIsa {
            others: Expected::new(ops, rows, row_len, x),
            amx: amx.then(|| Expected::in_bf16(ops, rows, row_len, x)),
        }
    }

    fn on(&self, isa: Isa) -> &Expected {
        self.amx.as_ref().filter(|_| isa.name() == "amx").unwrap_or(&self.others)
    }
}

fn decoded(ops: &QuantOps, rows: &[u8], row_len: usize) -> Vec<f32> {
    let row_bytes = row_len / ops.ggml_type.block_len() * ops.ggml_type.block_bytes();
    let mut weights = vec![0.0; rows.len() / row_bytes * row_len];
    for (row, weights) in rows.chunks_exact(row_bytes).zip(weights.chunks_exact_mut(row_len)) {
        (ops.decode)(row, weights);
    }
    weights
}

impl Expected {
    /// Kernels cut weights to the 8 bits of bfloat16 and make up for what that takes off on average, so each is wrong by up to
    /// a place, one way or the other: in the sum of many, all together by a few times the root of the squares. Those of a block
    /// that differ in their sign alone are wrong by the same part. None may lack. Numbers in half
    /// precision, and their activations, are split in two, of which the second is cut.
    fn in_bf16(ops: &QuantOps, rows: &[u8], row_len: usize, x: &[f32]) -> Self {
        const MANY: f64 = 2.0;
        const LAST_PLACE: f64 = 1.0 / 256.0;
        let is_split = ops.ggml_type == GgmlType::F16;
        let wrong = match ops.ggml_type {
            GgmlType::BF16 => 0.0,
            _ if is_split => MANY * LAST_PLACE * LAST_PLACE,
            _ => MANY * LAST_PLACE,
        };
        let weights: Vec<f64> = decoded(ops, rows, row_len).into_iter().map(f64::from).collect();
        let rounded = |x: f32| if is_split { x.into() } else { half::bf16::from_f32(x).to_f64() };
        let x: Vec<f64> = x.iter().map(|&x| rounded(x)).collect();
        let pairs = x.chunks_exact(row_len).flat_map(|x| weights.chunks_exact(row_len).map(move |w| (w, x)));
        let sums = pairs.map(|(w, x)| {
            let products: Vec<f64> = w.iter().zip(x).map(|(w, x)| w * x).collect();
            let magnitude: f64 = products.iter().map(|p| p.abs()).sum();
            let rounding = 16.0 * f64::from(f32::EPSILON) * magnitude;
            let blocks =
                products.chunks(ops.ggml_type.block_len()).map(|block| block.iter().sum::<f64>().abs());
            let root = products.iter().map(|p| p * p).sum::<f64>().sqrt();
            (dot(w, x), rounding + wrong * (root + blocks.sum::<f64>()))
        });
        Expected { sums: sums.collect(), n_rows: weights.len() / row_len }
    }

    fn new(ops: &QuantOps, rows: &[u8], row_len: usize, x: &[f32]) -> Self {
        let weights = decoded(ops, rows, row_len);
        let n_rows = weights.len() / row_len;
        let x = if let Dot::F32(_) = ops.dot {
            x.iter().map(|&x| x.into()).collect()
        } else {
            let mut blocks = vec![Q8Block::ZERO; x.len() / 32];
            quantize_q8(Isa::Scalar, x, &mut blocks);
            blocks.iter().flat_map(|b| b.quants.map(|q| f64::from(b.scale) * f64::from(q))).collect()
        };
        let weights = weights.into_iter().map(f64::from).collect();
        // A scale and a minimum may cancel: a block's weights count as much as its largest.
        let weights = Blocks::new(weights, row_len, |w| w.iter().fold(0.0, |m, w| m.max(w.abs())));
        let x = Blocks::new(x, row_len, |x| x.iter().map(|x| x.abs()).sum());
        let pairs = x.rows().flat_map(|x| weights.rows().map(move |w| (w, x)));
        let sums = pairs.map(|((w, largest), (x, magnitudes))| {
            (dot(w, x), 16.0 * f64::from(f32::EPSILON) * dot(largest, magnitudes))
        });
        Expected { sums: sums.collect(), n_rows }
    }

    fn check(&self, found: &[f32], what: &str) {
        for (i, (&found, &(exact, bound))) in found.iter().zip(&self.sums).enumerate() {
            let (token, row) = (i / self.n_rows, i % self.n_rows);
            let difference = (f64::from(found) - exact).abs();
            assert!(
                difference <= bound,
                "{what}, token {token}, row {row}: {found} {exact}, bound {bound:e}"
            );
        }
    }
}

/// Rows of numbers, and a number for each 32 of them.
struct Blocks {
    numbers: Vec<f64>,
    row_len: usize,
    of_blocks: Vec<f64>,
}

impl Blocks {
    fn new(numbers: Vec<f64>, row_len: usize, of_block: impl Fn(&[f64]) -> f64) -> Self {
        let of_blocks = numbers.chunks_exact(row_len).flat_map(|row| row.chunks(32)).map(of_block).collect();
        Blocks { numbers, row_len, of_blocks }
    }

    fn rows(&self) -> impl Iterator<Item = (&[f64], &[f64])> {
        self.numbers.chunks_exact(self.row_len).zip(self.of_blocks.chunks_exact(self.row_len.div_ceil(32)))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn multiply(isa: Isa, ops: QuantOps, rows: &[u8], row_len: usize, x: &[f32]) -> Vec<f32> {
    let matrix = Matrix::new(ops, row_len, rows);
    let n_tokens = x.len() / row_len;
    let mut out = vec![f32::NAN; n_tokens * matrix.n_rows()];
    let pool = ThreadPool::new(2).expect("threads");
    let mut scratch = ActivationBuf::new(isa);
    let tokens = Tokens { gemv: 0, gemm: n_tokens };
    matmul(&pool, &mut [MatmulJob::new(matrix, &mut out)], &Input::Rows(x), tokens, &mut scratch);
    out
}

#[test]
fn every_row_and_token_is_the_sum_that_defines_it() {
    let mut random = Random(1);
    for &ggml_type in GgmlType::ALL {
        let scalar = ops(ggml_type, Isa::Scalar);
        for n_rows in [1, 15, 16, 17, 33] {
            let row_len = 512;
            let rows = random_rows(&scalar, row_len, n_rows, &mut random);
            let x = random.floats(33 * row_len);
            let expected = OnEachIsa::new(&scalar, &rows, row_len, &x);
            for isa in Isa::available() {
                for n_tokens in (1..=17).chain([31, 32, 33]) {
                    let x = &x[..n_tokens * row_len];
                    let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, x);
                    expected.on(isa).check(&found, &format!("{ggml_type} {isa} {n_rows}x{n_tokens}"));
                }
            }
        }
    }
}

#[test]
fn many_tokens_are_the_sums_that_define_them() {
    let mut random = Random(2);
    for &ggml_type in GgmlType::ALL {
        let scalar = ops(ggml_type, Isa::Scalar);
        let (row_len, n_rows) = (1280, 17);
        let rows = random_rows(&scalar, row_len, n_rows, &mut random);
        let x = random.floats(512 * row_len);
        let expected = OnEachIsa::new(&scalar, &rows, row_len, &x);
        for isa in Isa::available() {
            let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, &x);
            expected.on(isa).check(&found, &format!("{ggml_type} {isa}"));
        }
    }
}

/// Numbers that come one by one need not be a multiple of what tiles take at a time.
#[test]
fn rows_of_any_length_are_multiplied() {
    let mut random = Random(4);
    for &ggml_type in GgmlType::ALL.iter().filter(|t| t.block_len() == 1) {
        let scalar = ops(ggml_type, Isa::Scalar);
        for row_len in [1, 31, 33, 40] {
            let rows = random_rows(&scalar, row_len, 17, &mut random);
            let x = random.floats(20 * row_len);
            let expected = OnEachIsa::new(&scalar, &rows, row_len, &x);
            for isa in Isa::available() {
                let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, &x);
                expected.on(isa).check(&found, &format!("{ggml_type} {isa} {row_len}"));
            }
        }
    }
}

/// Every byte of the rows the same, and activations at their largest: no intermediate sum may wrap or
/// saturate.
#[test]
fn extreme_integers_are_exact() {
    let mut random = Random(3);
    for &ggml_type in GgmlType::ALL {
        let scalar = ops(ggml_type, Isa::Scalar);
        let row_len = ggml_type.block_len().max(32) * 2;
        for byte in [0x00, 0xff, 0x88, 0x77, 0x80, 0x7f, 0x0f, 0xf0] {
            let mut rows = random_rows(&scalar, row_len, 16, &mut random);
            for row in rows.chunks_exact_mut(row_len / ggml_type.block_len() * ggml_type.block_bytes()) {
                for i in 0..row.len() {
                    let before = std::mem::replace(&mut row[i], byte);
                    if !is_sane(&scalar, row) {
                        row[i] = before;
                    }
                }
            }
            let signs: Vec<f32> =
                (0..row_len).map(|_| if random.below(2) == 0 { 1.0 } else { -1.0 }).collect();
            let x: Vec<f32> = [1.0, -1.0].iter().flat_map(|&x| vec![x; 8 * row_len]).chain(signs).collect();
            let expected = Expected::new(&scalar, &rows, row_len, &x);
            for isa in exact_isas() {
                let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, &x);
                expected.check(&found, &format!("{ggml_type} {isa} {byte:#x}"));
            }
        }
    }
}
