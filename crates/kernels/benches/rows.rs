//! What one thread makes of weight rows: dot products, decoding, and the quantization of what the rows meet.
//!
//! Throughput is in bytes of weights (for the quantizer, of floats), to be held against a plain `read` of
//! as many: from rows that the second-level cache holds (`cache`), and from more than any cache does
//! (`memory`). `matvec` is what two threads reach together with 1 and with 8 tokens, quantization included. There are hundreds of
//! these; a few are quick:
//!
//! ```text
//! cargo bench -p metallic-kernels --bench rows -- 'dot/Q4_K/avx512|read'
//! ```

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metallic_kernels::activations::{Q8Block, Q8Group, group_q8, n_groups, quantize_q8, quantize_q8_groups};
use metallic_kernels::matmul::{ActivationBuf, Input, MatmulJob, Matrix, Tokens, matmul};
use metallic_kernels::{Dot, GgmlType, Isa, QuantOps, ThreadPool, registry};

mod common;
use common::{PLACES, Random, Rows, config, formats, read};

/// Rows of small and of large models.
const ROW_LENGTHS: [usize; 3] = [576, 1536, 4096];

/// Every format with the row lengths it can have.
fn shapes() -> impl Iterator<Item = (GgmlType, usize)> {
    formats().flat_map(|t| {
        let fits = move |n: &usize| n.is_multiple_of(t.block_len());
        ROW_LENGTHS.into_iter().filter(fits).map(move |n| (t, n))
    })
}

/// One input in each form that kernels take.
struct Forms {
    floats: Vec<f32>,
    blocks: Vec<Q8Block>,
    groups: Vec<Q8Group>,
}

impl Forms {
    fn new(len: usize) -> Self {
        let floats = Random(2).floats(len);
        let mut blocks = vec![Q8Block::ZERO; len / 32];
        quantize_q8(Isa::Scalar, &floats, &mut blocks);
        let mut groups = vec![Q8Group::ZERO; n_groups(blocks.len())];
        group_q8(&blocks, &mut groups);
        Forms { floats, blocks, groups }
    }

    fn dot(&self, ops: &QuantOps, rows: &[u8], out: &mut [f32]) {
        match ops.dot {
            Dot::F32(dots) => dots(rows, &self.floats, 1, out),
            Dot::Q8(dots) => dots(rows, &self.blocks, 1, out),
            Dot::Q8Groups(dots) => dots(rows, &self.groups, 1, out),
        }
    }
}

fn dot(c: &mut Criterion) {
    let mut group = c.benchmark_group("dot");
    for (place, n_bytes) in PLACES {
        for (ggml_type, row_len) in shapes() {
            for isa in Isa::available() {
                let rows = Rows::new(registry::ops(ggml_type, isa), row_len, n_bytes);
                let bytes = LazyCell::new(|| rows.bytes());
                let (x, mut out) = (Forms::new(row_len), vec![0.0; rows.n]);
                group.throughput(rows.throughput());
                group.bench_function(format!("{ggml_type}/{isa}/k{row_len}/{place}"), |b| {
                    let bytes = &**bytes;
                    b.iter(|| x.dot(&rows.ops, black_box(bytes), black_box(&mut out)));
                });
            }
        }
    }
}

fn matvec(c: &mut Criterion) {
    let mut group = c.benchmark_group("matvec");
    let Ok(pool) = ThreadPool::new(2) else { return };
    for (ggml_type, row_len) in shapes() {
        let rows = Rows::new(registry::ops(ggml_type, Isa::best()), row_len, PLACES[1].1);
        let bytes = LazyCell::new(|| rows.bytes());
        let mut scratch = ActivationBuf::new(Isa::best());
        group.throughput(rows.throughput());
        for n_tokens in [1, 8] {
            let tokens = Tokens { gemv: n_tokens, gemm: 0 };
            let (x, mut out) = (Random(2).floats(n_tokens * row_len), vec![0.0; n_tokens * rows.n]);
            group.bench_function(format!("{ggml_type}/k{row_len}/{n_tokens}"), |b| {
                let bytes = &**bytes;
                b.iter(|| {
                    let mut jobs = [MatmulJob::new(Matrix::new(rows.ops, row_len, bytes), &mut out)];
                    matmul(&pool, &mut jobs, &Input::Rows(&x), tokens, &mut scratch);
                });
            });
        }
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (ggml_type, row_len) in shapes().filter(|&(_, row_len)| row_len == 4096) {
        for isa in Isa::available() {
            let rows = Rows::new(registry::ops(ggml_type, isa), row_len, 1);
            let bytes = LazyCell::new(|| rows.bytes());
            let mut out = vec![0.0; rows.n * row_len];
            group.throughput(rows.throughput());
            group.bench_function(format!("{ggml_type}/{isa}"), |b| {
                b.iter(|| (rows.ops.decode)(black_box(&bytes), black_box(&mut out)));
            });
        }
    }
}

fn quantize(c: &mut Criterion) {
    let mut group = c.benchmark_group("quantize");
    for len in ROW_LENGTHS {
        let x = Random(2).floats(len);
        let mut blocks = vec![Q8Block::ZERO; len / 32];
        let mut groups = vec![Q8Group::ZERO; n_groups(blocks.len())];
        group.throughput(Throughput::BytesDecimal(4 * len as u64));
        for isa in Isa::available() {
            group.bench_function(format!("blocks/{isa}/k{len}"), |b| {
                b.iter(|| quantize_q8(isa, black_box(&x), black_box(&mut blocks)));
            });
            group.bench_function(format!("groups/{isa}/k{len}"), |b| {
                b.iter(|| quantize_q8_groups(isa, black_box(&x), black_box(&mut groups)));
            });
        }
    }
}

criterion_group!(name = benches; config = config(); targets = read, dot, matvec, decode, quantize);
criterion_main!(benches);
