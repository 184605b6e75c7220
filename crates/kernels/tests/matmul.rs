//! Row dot products and matrix products: every type on every instruction set against the definition,
//! and results that depend on nothing but the row and the token.

use metallic_kernels::activation::{Activation, activate_gated};
use metallic_kernels::activations::{Q8Block, Q8Group, group_q8, n_groups, quantize_q8};
use metallic_kernels::matmul::{ActivationBuf, Input, MatmulJob, Matrix, Products, Tokens, matmul};
use metallic_kernels::norm::{Norm, NormKind};
use metallic_kernels::registry::ops;
use metallic_kernels::{Dot, GgmlType, Isa, QuantOps, ThreadPool};

mod common;
use common::{Random, dot_q8, exact_isas, is_sane, one, random_rows};

fn row_lengths(ggml_type: GgmlType) -> Vec<usize> {
    let block = ggml_type.block_len().max(32);
    let mut lengths = [1, 2, 3, 7, 8, 9, 17, 18, 128 * 32 / block].map(|n| n * block).to_vec();
    if ggml_type.block_len() == 1 {
        lengths.extend([1, 3, 15, 31, 33, 63, 65, 127, 133]);
    }
    lengths
}

fn quantized(isa: Isa, x: &[f32]) -> Vec<Q8Block> {
    let mut blocks = vec![Q8Block::ZERO; x.len() / 32];
    quantize_q8(isa, x, &mut blocks);
    blocks
}

/// What `ops.dot` must come near to, and how near: the sum in f64 of decoded weights times the
/// activations that the kernel is given (for integer formats, after their quantization). The integer
/// parts are exact, so what remains is the rounding of a short sum of floats: its bound is relative to
/// the sum of the magnitudes, with a block's weights taken at the size of their largest part, since a
/// scale and a minimum may cancel.
fn definition(ops: &QuantOps, row: &[u8], x: &[f32]) -> (f64, f64) {
    let mut weights = vec![0.0f32; x.len()];
    (ops.decode)(row, &mut weights);
    let x: Vec<f64> = match ops.dot {
        Dot::F32(_) => x.iter().map(|&x| f64::from(x)).collect(),
        Dot::Q8(_) | Dot::Q8Groups(_) => quantized(Isa::Scalar, x)
            .iter()
            .flat_map(|b| b.quants.map(|q| f64::from(b.scale) * f64::from(q)))
            .collect(),
    };
    let exact = weights.iter().zip(&x).map(|(&w, x)| f64::from(w) * x).sum();
    let magnitude: f64 = weights
        .chunks(32)
        .zip(x.chunks(32))
        .map(|(w, x)| {
            let largest = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            f64::from(largest) * x.iter().map(|x| x.abs()).sum::<f64>()
        })
        .sum();
    (exact, 16.0 * f64::from(f32::EPSILON) * magnitude)
}

fn dot(ops: &QuantOps, isa: Isa, row: &[u8], x: &[f32]) -> f32 {
    match ops.dot {
        Dot::F32(dots) => one(dots, row, x),
        _ => dot_q8(ops, row, &quantized(isa, x)).expect("a format takes floats or quants"),
    }
}

#[test]
fn every_dot_is_its_definition() {
    let mut random = Random(1);
    for &ggml_type in GgmlType::ALL {
        for row_len in row_lengths(ggml_type) {
            for _ in 0..20 {
                let scalar = ops(ggml_type, Isa::Scalar);
                let row = random_rows(&scalar, row_len, 1, &mut random);
                let x = random.floats(row_len);
                let (exact, bound) = definition(&scalar, &row, &x);
                for isa in Isa::available() {
                    let dot = dot(&ops(ggml_type, isa), isa, &row, &x);
                    let difference = (f64::from(dot) - exact).abs();
                    assert!(
                        difference <= bound,
                        "{ggml_type:?} {isa} {row_len}: {dot} {exact}, bound {bound:e}"
                    );
                }
            }
        }
    }
}

/// Kernels take several rows at once, and what is left of them: none may show in another's product.
#[test]
fn a_product_does_not_depend_on_the_rows_beside_its_own() {
    let mut random = Random(6);
    for ops in Isa::available().into_iter().flat_map(|isa| GgmlType::ALL.iter().map(move |&t| ops(t, isa))) {
        let Dot::Q8Groups(dot) = ops.dot else { continue };
        for row_len in row_lengths(ops.ggml_type) {
            let rows = random_rows(&ops, row_len, 7, &mut random);
            let mut groups = vec![Q8Group::ZERO; n_groups(row_len / 32)];
            group_q8(&quantized(ops.isa, &random.floats(row_len)), &mut groups);
            let alone: Vec<f32> = rows.chunks(rows.len() / 7).map(|row| one(dot, row, &groups)).collect();
            for n in 2..=7 {
                let mut out = vec![f32::NAN; n];
                dot(&rows[..rows.len() / 7 * n], &groups, 1, &mut out);
                assert_eq!(out, alone[..n], "{} {} {row_len}", ops.ggml_type, ops.isa);
            }
        }
    }
}

/// Bytes and activations at their extremes: no intermediate sum of an integer kernel may wrap or
/// saturate.
#[test]
fn extreme_integers_are_exact() {
    let mut random = Random(2);
    for &ggml_type in GgmlType::ALL {
        let scalar = ops(ggml_type, Isa::Scalar);
        let row_len = ggml_type.block_len().max(32);
        for byte in [0x00, 0xff, 0x88, 0x77, 0x80, 0x7f, 0x0f, 0xf0] {
            let mut row = random_rows(&scalar, row_len, 1, &mut random);
            for i in 0..row.len() {
                let before = std::mem::replace(&mut row[i], byte);
                if !is_sane(&scalar, &row) {
                    row[i] = before;
                }
            }
            for x in [vec![1.0; row_len], vec![-1.0; row_len]] {
                let (exact, bound) = definition(&scalar, &row, &x);
                for isa in Isa::available() {
                    let dot = dot(&ops(ggml_type, isa), isa, &row, &x);
                    let difference = (f64::from(dot) - exact).abs();
                    assert!(difference <= bound, "{ggml_type:?} {isa} {byte:x}: {dot} {exact}");
                }
            }
        }
    }
}

#[test]
fn quantized_activations_are_equal_on_every_isa() {
    let mut random = Random(3);
    let mut x = random.floats(32 * 40);
    // Ties, which round to even: the largest is 127, so the step is 1.
    x[..32].iter_mut().enumerate().for_each(|(i, x)| *x = i as f32 - 15.5);
    x[31] = 127.0;
    x[32..64].fill(0.0);
    x[64..96].fill(-3.0);
    x[96..128].iter_mut().enumerate().for_each(|(i, x)| *x = 1e-42 * i as f32);
    x[128..160].iter_mut().for_each(|x| *x *= 1e38);
    x[161] = f32::NAN;
    x[193] = f32::NEG_INFINITY;
    let scalar = quantized(Isa::Scalar, &x);
    assert_eq!(scalar[0].quants[..4], [-16, -14, -14, -12]);
    for block in &scalar {
        let sum = |half: &[i8]| half.iter().map(|&q| i32::from(q)).sum::<i32>();
        assert_eq!(i32::from(block.sums[0]), sum(&block.quants[..16]));
        assert_eq!(block.sum(), sum(&block.quants));
    }
    for isa in Isa::available() {
        let bits = |block: &Q8Block| (block.scale.to_bits(), block.sums, block.quants);
        assert!(quantized(isa, &x).iter().map(bits).eq(scalar.iter().map(bits)), "{isa}");
    }
}

/// Three matrices over one input, of which the second is given in two chunks.
struct Layer {
    ops: [QuantOps; 3],
    rows: [Vec<u8>; 3],
    n_rows: [usize; 3],
    row_len: usize,
}

impl Layer {
    fn new(ops: [QuantOps; 3], row_len: usize, random: &mut Random) -> Self {
        let n_rows = [37, 50, 1];
        let rows = std::array::from_fn(|i| random_rows(&ops[i], row_len, n_rows[i], random));
        Layer { ops, rows, n_rows, row_len }
    }

    fn run(&self, pool: &ThreadPool, isa: Isa, x: &[f32], tokens: Tokens) -> [Vec<f32>; 3] {
        let mut out = self.n_rows.map(|n| vec![f32::NAN; n * tokens.count()]);
        let matrix = |i: usize| Matrix::new(self.ops[i], self.row_len, &self.rows[i]);
        let mut scratch = ActivationBuf::new(isa);
        let [a, b, c] = &mut out;
        let mut jobs = [MatmulJob::new(matrix(0), a), MatmulJob::new(matrix(2), c)];
        matmul(pool, &mut jobs, &Input::Rows(x), tokens, &mut scratch);
        for chunk in [0..13, 13..50] {
            let weights = matrix(1).rows(chunk.clone());
            let mut job = [MatmulJob::chunk(weights, b, 50, chunk.start)];
            matmul(pool, &mut job, &Input::Rows(x), tokens, &mut scratch);
        }
        out
    }
}

#[test]
fn products_are_their_definition_whatever_the_threads_and_chunks() {
    let mut random = Random(4);
    let pools = [1, 2, 3].map(|n_threads| ThreadPool::new(n_threads).unwrap());
    for isa in Isa::available() {
        for (ggml_type, row_len) in GgmlType::ALL.iter().flat_map(|&t| [(t, 256), (t, 1280)]) {
            let types = [ggml_type, ggml_type, GgmlType::F32];
            let layer = Layer::new(types.map(|t| ops(t, isa)), row_len, &mut random);
            let x = random.floats(40 * row_len);
            for (gemv, gemm) in [(1, 0), (0, 1), (7, 0), (0, 9), (3, 13), (16, 5), (40, 0)] {
                let tokens = Tokens { gemv, gemm };
                let n_tokens = tokens.count();
                let x = &x[..n_tokens * row_len];
                let out = layer.run(&pools[0], isa, x, tokens);
                for pool in &pools[1..] {
                    let n = pool.n_threads();
                    assert!(layer.run(pool, isa, x, tokens) == out, "{ggml_type} {isa} {tokens:?} {n}");
                }
                if !exact_isas().any(|exact| exact == isa) {
                    continue;
                }
                for (i, out) in out.iter().enumerate() {
                    let matrix = Matrix::new(layer.ops[i], row_len, &layer.rows[i]);
                    for (token, r) in
                        [(0, 0), (n_tokens / 2, matrix.n_rows() / 2), (n_tokens - 1, matrix.n_rows() - 1)]
                    {
                        let found = out[token * matrix.n_rows() + r];
                        let (exact, bound) =
                            definition(matrix.ops(), matrix.row(r), &x[token * row_len..][..row_len]);
                        let difference = (f64::from(found) - exact).abs();
                        assert!(
                            difference <= bound,
                            "{ggml_type} {isa} {n_tokens}: {found} {exact}, {bound:e}"
                        );
                    }
                }
            }
        }
    }
}

/// However many tokens are in a call and whichever way the others take, each has the bits that it has alone.
#[test]
fn results_depend_on_their_row_their_token_and_the_way_alone() {
    let mut random = Random(5);
    let pool = ThreadPool::new(2).unwrap();
    for isa in Isa::available() {
        for &ggml_type in GgmlType::ALL {
            // With and without what is left of a row by kernels that take 256 weights at a time.
            for row_len in [512usize, 672].into_iter().filter(|n| n.is_multiple_of(ggml_type.block_len())) {
                let layer = Layer::new([ops(ggml_type, isa); 3], row_len, &mut random);
                let x = random.floats(70 * row_len);
                let row = |t: usize| &x[t * row_len..][..row_len];
                let alone = |t: usize, tokens| layer.run(&pool, isa, row(t), tokens);
                let gemv: Vec<_> = (0..70).map(|t| alone(t, Tokens { gemv: 1, gemm: 0 })).collect();
                let gemm: Vec<_> = (0..70).map(|t| alone(t, Tokens { gemv: 0, gemm: 1 })).collect();
                for (n_gemv, n_gemm) in [
                    (2, 0),
                    (3, 0),
                    (8, 0),
                    (17, 0),
                    (32, 0),
                    (70, 0),
                    (0, 2),
                    (0, 17),
                    (0, 70),
                    (1, 1),
                    (33, 37),
                ] {
                    let tokens = Tokens { gemv: n_gemv, gemm: n_gemm };
                    let all = layer.run(&pool, isa, &x[..tokens.count() * row_len], tokens);
                    for t in 0..tokens.count() {
                        let alone = if t < n_gemv { &gemv[t] } else { &gemm[t] };
                        for (all, alone) in all.iter().zip(alone) {
                            let part = &all[t * alone.len()..][..alone.len()];
                            assert!(part == alone, "{ggml_type} {isa} {row_len} {tokens:?} {t}");
                        }
                    }
                }
            }
        }
    }
}

/// Long rows of many tokens are multiplied in steps, and more tokens than have room at once in several turns; one alone is not.
#[test]
fn results_do_not_depend_on_what_fits_the_cache() {
    let mut random = Random(9);
    let pool = ThreadPool::new(2).unwrap();
    for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
        for (ggml_type, row_len, n_rows, n_tokens) in [
            (GgmlType::Q4_0, 8192 + 32, 37, 70),
            (GgmlType::Q4_K, 8192 + 256, 16, 65),
            (GgmlType::BF16, 2048 + 96, 21, 530),
            (GgmlType::Q8_0, 1120, 1100, 500),
        ] {
            let ops = ops(ggml_type, isa);
            let rows = random_rows(&ops, row_len, n_rows, &mut random);
            let x = random.floats(n_tokens * row_len);
            let run = |x: &[f32]| {
                let n_tokens = x.len() / row_len;
                let mut out = vec![f32::NAN; n_rows * n_tokens];
                let mut jobs = [MatmulJob::new(Matrix::new(ops, row_len, &rows), &mut out)];
                let tokens = Tokens { gemv: 0, gemm: n_tokens };
                matmul(&pool, &mut jobs, &Input::Rows(x), tokens, &mut ActivationBuf::new(isa));
                out
            };
            let all = run(&x);
            for t in [0, 15, 16, 40, n_tokens - 1] {
                let alone = run(&x[t * row_len..][..row_len]);
                assert!(all[t * n_rows..][..n_rows] == alone, "{ggml_type} {isa}: token {t} of {n_tokens}");
            }
        }
    }
}

/// Where only some types have tiles, matrices that come one after another take other numbers of tokens one by one.
#[test]
fn inputs_made_for_one_matrix_are_whole_for_the_next() {
    let mut random = Random(8);
    let pool = ThreadPool::new(2).unwrap();
    for isa in Isa::available() {
        let (row_len, n_rows, tokens) = (64, 5, Tokens { gemv: 5, gemm: 15 });
        let x = random.floats(tokens.count() * row_len);
        let input = Input::Rows(&x);
        let mut scratch = ActivationBuf::new(isa);
        let mut products = Products::new(&pool, &input, tokens, &mut scratch);
        for ops in [GgmlType::F32, GgmlType::F64].map(|ggml_type| ops(ggml_type, isa)) {
            let rows = random_rows(&ops, row_len, n_rows, &mut random);
            let [mut after, mut alone] = [(); 2].map(|()| vec![f32::NAN; n_rows * tokens.count()]);
            products.multiply(&mut [MatmulJob::new(Matrix::new(ops, row_len, &rows), &mut after)]);
            let mut jobs = [MatmulJob::new(Matrix::new(ops, row_len, &rows), &mut alone)];
            matmul(&pool, &mut jobs, &input, tokens, &mut ActivationBuf::new(isa));
            assert!(after == alone, "{} {isa}", ops.ggml_type);
        }
    }
}

#[test]
fn scratch_reserved_is_scratch_enough() {
    let pool = ThreadPool::new(1).unwrap();
    let mut scratch = ActivationBuf::new(Isa::best());
    scratch.reserve(1, 3, 64);
    let n_bytes = |n_threads, n_rows| ActivationBuf::reserved_bytes(Isa::Scalar, n_threads, n_rows, 64);
    let of_row = 2 * size_of::<Q8Block>() as u64 + 64 * 4;
    assert_eq!(n_bytes(1, 3), 3 * of_row);
    // More are made by all threads together, at most 32 at a time.
    assert_eq!([n_bytes(2, 4), n_bytes(2, 40)], [(2 * 3 + 4) * of_row, (2 * 3 + 32) * of_row]);
    let row = vec![0; GgmlType::Q4_0.block_bytes() * 2];
    let mut out = [1.0; 3];
    let matrix = Matrix::new(ops(GgmlType::Q4_0, Isa::best()), 64, &row);
    let x = [1.0; 3 * 64];
    matmul(
        &pool,
        &mut [MatmulJob::new(matrix, &mut out)],
        &Input::Rows(&x),
        Tokens { gemv: 3, gemm: 0 },
        &mut scratch,
    );
    assert_eq!(out, [0.0; 3]);
}

#[test]
fn scratch_for_the_longest_rows_is_scratch_for_all() {
    let bytes = |isa, n_rows, n_blocks: usize| ActivationBuf::reserved_bytes(isa, 100, n_rows, 32 * n_blocks);
    for isa in Isa::available() {
        for n_rows in [1, 3, 4, 64] {
            for (shorter, longer) in [(1, 2), (17, 18), (18, 48), (48, 100), (127, 128), (128, 1000)] {
                assert!(bytes(isa, n_rows, shorter) <= bytes(isa, n_rows, longer), "{isa}: {shorter}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "results fit in an output row")]
fn a_chunk_beyond_the_output_row_is_refused() {
    let row = [0; 128];
    MatmulJob::chunk(Matrix::new(ops(GgmlType::F32, Isa::Scalar), 32, &row), &mut [0.0; 8], 8, 8);
}

#[test]
#[should_panic(expected = "the output has a row for each token")]
fn an_output_too_short_is_refused() {
    let row = [0; 128];
    let matrix = Matrix::new(ops(GgmlType::F32, Isa::Scalar), 32, &row);
    let mut out = [0.0; 1];
    let pool = ThreadPool::new(1).unwrap();
    let mut scratch = ActivationBuf::new(Isa::Scalar);
    let (mut jobs, tokens) = ([MatmulJob::new(matrix, &mut out)], Tokens { gemv: 2, gemm: 0 });
    matmul(&pool, &mut jobs, &Input::Rows(&[0.0; 64]), tokens, &mut scratch);
}

/// What is made on the way into the product is what the operations by themselves make, bit for bit.
#[test]
fn inputs_made_on_the_way_are_the_operations_by_themselves() {
    let mut random = Random(6);
    let pool = ThreadPool::new(2).unwrap();
    let (row_len, eps, activation) = (512, 1e-5, Activation::Silu);
    for isa in Isa::available() {
        for ggml_type in [GgmlType::F32, GgmlType::Q4_0, GgmlType::Q6_K] {
            let ops = ops(ggml_type, isa);
            let rows = random_rows(&ops, row_len, 19, &mut random);
            for (gemv, gemm) in [(1, 0), (5, 0), (0, 5), (2, 16)] {
                let tokens = Tokens { gemv, gemm };
                let n_tokens = tokens.count();
                let [x, up] = [(); 2].map(|()| random.floats(n_tokens * row_len));
                let weight = random.floats(row_len);
                let norm = Norm { kind: NormKind::Rms, weight: &weight, bias: None, eps };
                let run = |input: Input<'_>| {
                    let mut out = vec![f32::NAN; 19 * n_tokens];
                    let mut jobs = [MatmulJob::new(Matrix::new(ops, row_len, &rows), &mut out)];
                    matmul(&pool, &mut jobs, &input, tokens, &mut ActivationBuf::new(isa));
                    out
                };
                let mut normed = x.clone();
                for row in normed.chunks_exact_mut(row_len) {
                    norm.write_over(isa, row);
                }
                let input = Input::Norm { x: &x, norm };
                assert!(run(input) == run(Input::Rows(&normed)), "{ggml_type} {isa} {n_tokens}");
                let mut gated = vec![0.0; x.len()];
                activate_gated(isa, activation, &x, &up, &mut gated);
                let input = Input::Gated { activation, gate: &x, up: &up };
                assert!(run(input) == run(Input::Rows(&gated)), "{ggml_type} {isa} {n_tokens}");
            }
        }
    }
}

#[test]
fn a_bias_is_added_and_results_accumulate() {
    let mut random = Random(7);
    let pool = ThreadPool::new(2).unwrap();
    let (row_len, n_rows) = (256, 37);
    for isa in Isa::available() {
        let ops = ops(GgmlType::Q8_0, isa);
        let rows = random_rows(&ops, row_len, n_rows, &mut random);
        let bias = random.floats(n_rows);
        for (gemv, gemm) in [(1, 0), (3, 0), (9, 11)] {
            let tokens = Tokens { gemv, gemm };
            let n_tokens = tokens.count();
            let x = random.floats(n_tokens * row_len);
            let before = random.floats(n_tokens * n_rows);
            let (mut plain, mut changed) = (before.clone(), before.clone());
            let matrix = Matrix::new(ops, row_len, &rows);
            let run = |job| matmul(&pool, &mut [job], &Input::Rows(&x), tokens, &mut ActivationBuf::new(isa));
            run(MatmulJob::new(matrix, &mut plain));
            run(MatmulJob::new(matrix, &mut changed).with_bias(&bias).accumulating());
            // Sums in tiles begin with what is there, so they are rounded otherwise.
            let largest = plain.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let in_tiles = if isa.name() == "amx" { gemv * n_rows } else { plain.len() };
            for (i, changed) in changed.iter().enumerate() {
                let expected = before[i] + (plain[i] + bias[i % n_rows]);
                let near = if i < in_tiles { 0.0 } else { 16.0 * f32::EPSILON * largest };
                assert!((changed - expected).abs() <= near, "{isa}, result {i}: {changed} {expected}");
            }
        }
    }
}
