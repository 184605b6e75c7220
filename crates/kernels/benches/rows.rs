//! What one thread makes of weight rows: dot products, decoding, and the quantization of what the rows meet.
//!
//! Throughput is in bytes of weights (for the quantizer, of floats), to be held against a plain `read` of
//! as many: from rows that the second-level cache holds (`cache`), and from more than any cache does
//! (`memory`). `matvec` is what two threads reach together, quantization included. There are hundreds of
//! these; a few are quick:
//!
//! ```text
//! cargo bench -p metallic-kernels --bench rows -- 'dot/Q4_K/avx512|read'
//! ```

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metallic_kernels::activations::{Q8Block, Q8Group, group_q8, n_groups, quantize_q8, quantize_q8_groups};
use metallic_kernels::matmul::{ActivationBuf, Input, MatmulJob, Matrix, matmul};
use metallic_kernels::{Dot, GgmlType, Isa, QuantOps, ThreadPool, registry};

#[path = "../tests/common/mod.rs"]
mod common;
use common::Random;

/// Where weights come from: how many bytes of them there are decides it.
const PLACES: [(&str, usize); 2] = [("cache", 256 << 10), ("memory", 256 << 20)];

/// Rows of small and of large models.
const ROW_LENGTHS: [usize; 3] = [576, 1536, 4096];

/// Every format that models are stored in, with the row lengths it can have.
fn formats() -> impl Iterator<Item = (GgmlType, usize)> {
    use GgmlType::{F64, I8, I16, I32, I64};
    let formats = GgmlType::ALL.iter().filter(|t| !matches!(t, F64 | I8 | I16 | I32 | I64));
    formats.flat_map(|&t| {
        let fits = move |n: &usize| n.is_multiple_of(t.block_len());
        ROW_LENGTHS.into_iter().filter(fits).map(move |n| (t, n))
    })
}

/// Rows of one format, whole ones of about so many bytes, made where a benchmark wants them.
struct Rows {
    ops: QuantOps,
    row_len: usize,
    n: usize,
}

impl Rows {
    fn new(ops: QuantOps, row_len: usize, n_bytes: usize) -> Self {
        let row_bytes = row_len / ops.ggml_type.block_len() * ops.ggml_type.block_bytes();
        Rows { ops, row_len, n: (n_bytes / row_bytes).next_multiple_of(4) }
    }

    fn throughput(&self) -> Throughput {
        let row_bytes = self.row_len / self.ops.ggml_type.block_len() * self.ops.ggml_type.block_bytes();
        Throughput::BytesDecimal((self.n * row_bytes) as u64)
    }

    /// Random blocks of ordinary size: numbers too small for a normal float make some operations slow.
    fn bytes(&self) -> Vec<u8> {
        let mut random = Random(1);
        let mut weights = vec![0.0; self.ops.ggml_type.block_len()];
        let mut is_ordinary = |block: &Vec<u8>| {
            (self.ops.decode)(block, &mut weights);
            let largest = weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            (1e-3..1e3).contains(&largest) && weights.iter().all(|w| w.is_finite())
        };
        let blocks = std::iter::repeat_with(|| random.bytes(self.ops.ggml_type.block_bytes()));
        let n_blocks = 4 * self.row_len / self.ops.ggml_type.block_len();
        let four: Vec<u8> = blocks.filter(&mut is_ordinary).take(n_blocks).flatten().collect();
        four.repeat(self.n / 4)
    }
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
        let n_rows = out.len();
        let each = out.iter_mut().zip(rows.chunks_exact(rows.len() / n_rows));
        match ops.dot {
            Dot::F32(dot) => each.for_each(|(out, row)| *out = dot(row, &self.floats)),
            Dot::Q8(dot) => each.for_each(|(out, row)| *out = dot(row, &self.blocks)),
            Dot::Q8Groups(dot) => dot(rows, &self.groups, out),
        }
    }
}

fn dot(c: &mut Criterion) {
    let mut group = c.benchmark_group("dot");
    for (place, n_bytes) in PLACES {
        for (ggml_type, row_len) in formats() {
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
    for (ggml_type, row_len) in formats() {
        let rows = Rows::new(registry::ops(ggml_type, Isa::best()), row_len, PLACES[1].1);
        let bytes = LazyCell::new(|| rows.bytes());
        let (x, mut out) = (Random(2).floats(row_len), vec![0.0; rows.n]);
        let mut scratch = ActivationBuf::new(Isa::best());
        group.throughput(rows.throughput());
        group.bench_function(format!("{ggml_type}/k{row_len}"), |b| {
            let bytes = &**bytes;
            b.iter(|| {
                let mut jobs = [MatmulJob::new(Matrix::new(rows.ops, row_len, bytes), &mut out)];
                matmul(&pool, &mut jobs, &Input::Rows(&x), 1, &mut scratch);
            });
        });
    }
}

/// The ceiling: what it takes to have seen each byte.
fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    for (place, n_bytes) in PLACES {
        let words = LazyCell::new(|| vec![1u64; n_bytes / 8]);
        group.throughput(Throughput::BytesDecimal(n_bytes as u64));
        group.bench_function(place, |b| b.iter(|| xor(black_box(&words))));
    }
    let Ok(pool) = ThreadPool::new(2) else { return };
    let words = LazyCell::new(|| vec![1u64; PLACES[1].1 / 8]);
    group.bench_function("memory by two", |b| {
        let words = &**words;
        let (first, second) = words.split_at(words.len() / 2);
        b.iter(|| pool.run(&|worker| _ = black_box(xor([first, second][worker]))));
    });
}

fn xor(words: &[u64]) -> [u64; 32] {
    let mut all = [0; 32];
    for words in words.as_chunks::<32>().0 {
        all.iter_mut().zip(words).for_each(|(all, word)| *all ^= word);
    }
    all
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (ggml_type, row_len) in formats().filter(|&(_, row_len)| row_len == 4096) {
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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    targets = read, dot, matvec, decode, quantize
}
criterion_main!(benches);
