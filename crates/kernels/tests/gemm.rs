//! Products of many tokens in tiles: every format on every instruction set against plain sums.

use metallic_kernels::activations::{Q8Block, quantize_q8};
use metallic_kernels::matmul::{ActivationBuf, Input, MatmulJob, Matrix, matmul};
use metallic_kernels::registry::ops;
use metallic_kernels::{Dot, GgmlType, Isa, QuantOps, ThreadPool};

mod common;
use common::{Random, is_sane, random_rows};

/// What the products of a matrix must be, and how near they must come: sums in f64 of the weights times
/// the activations that the kernel is given. The integers in between are exact, so what remains is the
/// rounding of a sum of floats, one or two a block.
struct Expected {
    weights: Vec<f64>,
    x: Vec<f64>,
    row_len: usize,
}

impl Expected {
    fn new(ops: &QuantOps, rows: &[u8], row_len: usize, x: &[f32]) -> Self {
        let n_rows = rows.len() / (row_len / ops.ggml_type.block_len() * ops.ggml_type.block_bytes());
        let mut weights = vec![0.0; n_rows * row_len];
        let row_bytes = rows.len() / n_rows;
        for (row, weights) in rows.chunks_exact(row_bytes).zip(weights.chunks_exact_mut(row_len)) {
            (ops.decode)(row, weights);
        }
        let x = if let Dot::F32(_) = ops.dot {
            x.iter().map(|&x| x.into()).collect()
        } else {
            let mut blocks = vec![Q8Block::ZERO; x.len() / 32];
            quantize_q8(Isa::Scalar, x, &mut blocks);
            blocks.iter().flat_map(|b| b.quants.map(|q| f64::from(b.scale) * f64::from(q))).collect()
        };
        Expected { weights: weights.into_iter().map(f64::from).collect(), x, row_len }
    }

    fn check(&self, found: &[f32], n_rows: usize, what: &str) {
        for (token, found) in found.chunks_exact(n_rows).enumerate() {
            for (r, &found) in found.iter().enumerate() {
                let w = &self.weights[r * self.row_len..][..self.row_len];
                let x = &self.x[token * self.row_len..][..self.row_len];
                let exact: f64 = w.iter().zip(x).map(|(w, x)| w * x).sum();
                let largest = |w: &[f64]| w.iter().fold(0.0f64, |m, w| m.max(w.abs()));
                // A scale and a minimum may cancel: a block's weights count as much as its largest.
                let magnitude: f64 = w
                    .chunks(32)
                    .zip(x.chunks(32))
                    .map(|(w, x)| largest(w) * x.iter().map(|x| x.abs()).sum::<f64>())
                    .sum();
                let bound = 16.0 * f64::from(f32::EPSILON) * magnitude;
                let difference = (f64::from(found) - exact).abs();
                assert!(
                    difference <= bound,
                    "{what}, token {token}, row {r}: {found} {exact}, bound {bound:e}"
                );
            }
        }
    }
}

fn multiply(isa: Isa, ops: QuantOps, rows: &[u8], row_len: usize, x: &[f32]) -> Vec<f32> {
    let matrix = Matrix::new(ops, row_len, rows);
    let n_tokens = x.len() / row_len;
    let mut out = vec![f32::NAN; n_tokens * matrix.n_rows()];
    let pool = ThreadPool::new(2).expect("threads");
    let mut scratch = ActivationBuf::new(isa);
    matmul(&pool, &mut [MatmulJob::new(matrix, &mut out)], &Input::Rows(x), n_tokens, &mut scratch);
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
            let expected = Expected::new(&scalar, &rows, row_len, &x);
            for isa in Isa::available() {
                for n_tokens in (1..=17).chain([31, 32, 33]) {
                    let x = &x[..n_tokens * row_len];
                    let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, x);
                    expected.check(&found, n_rows, &format!("{ggml_type} {isa} {n_rows}x{n_tokens}"));
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
        let expected = Expected::new(&scalar, &rows, row_len, &x);
        for isa in Isa::available() {
            let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, &x);
            expected.check(&found, n_rows, &format!("{ggml_type} {isa}"));
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
            let expected = Expected::new(&scalar, &rows, row_len, &x);
            for isa in Isa::available() {
                let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, &x);
                expected.check(&found, 17, &format!("{ggml_type} {isa} {row_len}"));
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
            for isa in Isa::available() {
                let found = multiply(isa, ops(ggml_type, isa), &rows, row_len, &x);
                expected.check(&found, 16, &format!("{ggml_type} {isa} {byte:#x}"));
            }
        }
    }
}
