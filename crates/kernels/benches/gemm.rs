//! What one thread makes of a matrix and many tokens: expanded weights, their products in register tiles, and the
//! quantization of the tokens.
//!
//! Throughput is in operations, two for each multiply-add with a weight; Criterion calls them elements. `bound` is how
//! many the same instructions make where nothing is loaded, scaled or stored: `int8` for the quantized types, `f32` for
//! those that are floats.
//!
//! ```text
//! cargo bench -p metallic-kernels --bench gemm -- 'Q4_K/avx512|bound'
//! ```

use std::cell::LazyCell;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metallic_kernels::matmul::{ActivationBuf, Input, MatmulJob, Matrix, Tokens, matmul};
use metallic_kernels::{ThreadPool, registry};

mod common;
use common::bound::bound;
use common::{Random, Rows, config, fast_isas, formats};

/// Rows, each of as many weights: so many that quantizing the tokens is a few per cent of the time.
const N_ROWS: usize = 2048;

/// Tokens that fill one tile, and those of a long prompt.
const N_TOKENS: [usize; 2] = [16, 512];

fn gemm(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm");
    let Ok(pool) = ThreadPool::new(1) else { return };
    for ggml_type in formats() {
        for isa in fast_isas() {
            let rows = Rows { ops: registry::ops(ggml_type, isa), row_len: N_ROWS, n: N_ROWS };
            let bytes = LazyCell::new(|| rows.bytes());
            for n_tokens in N_TOKENS {
                let (x, mut out) = (Random(2).floats(n_tokens * N_ROWS), vec![0.0; n_tokens * N_ROWS]);
                let mut scratch = ActivationBuf::new(isa);
                group.throughput(Throughput::Elements((2 * N_ROWS * N_ROWS * n_tokens) as u64));
                group.bench_function(format!("{ggml_type}/{isa}/{n_tokens} tokens"), |b| {
                    let matrix = Matrix::new(rows.ops, N_ROWS, &bytes);
                    b.iter(|| {
                        let mut jobs = [MatmulJob::new(matrix, &mut out)];
                        let tokens = Tokens { gemv: 0, gemm: n_tokens };
                        matmul(&pool, &mut jobs, &Input::Rows(&x), tokens, &mut scratch);
                    });
                });
            }
        }
    }
}

criterion_group!(name = benches; config = config(); targets = bound, gemm);
criterion_main!(benches);
