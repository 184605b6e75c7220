//! What the benchmarks share: how long they run, weight rows, and the ceilings that results are held against.
#![allow(dead_code, reason = "each program uses its part")]

pub(crate) mod bound;
#[path = "../../tests/common/mod.rs"]
mod tests;

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use metallic_kernels::{GgmlType, Isa, QuantOps, ThreadPool};

pub(crate) use self::tests::Random;

/// Where numbers come from: how many bytes of them there are decides it.
pub(crate) const PLACES: [(&str, usize); 2] = [("cache", 256 << 10), ("memory", 256 << 20)];

/// Short, for there are many.
pub(crate) fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
}

/// Every format that models are stored in.
pub(crate) fn formats() -> impl Iterator<Item = GgmlType> {
    use GgmlType::{F64, I8, I16, I32, I64};
    GgmlType::ALL.iter().copied().filter(|t| !matches!(t, F64 | I8 | I16 | I32 | I64))
}

/// The instruction sets that kernels for many tokens or queries are written for.
pub(crate) fn fast_isas() -> impl Iterator<Item = Isa> {
    Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar)
}

/// Rows of one format, whole ones of about so many bytes, made where a benchmark wants them.
pub(crate) struct Rows {
    pub(crate) ops: QuantOps,
    pub(crate) row_len: usize,
    pub(crate) n: usize,
}

impl Rows {
    pub(crate) fn new(ops: QuantOps, row_len: usize, n_bytes: usize) -> Self {
        let row_bytes = row_len / ops.ggml_type.block_len() * ops.ggml_type.block_bytes();
        Rows { ops, row_len, n: (n_bytes / row_bytes).next_multiple_of(4) }
    }

    pub(crate) fn throughput(&self) -> Throughput {
        let row_bytes = self.row_len / self.ops.ggml_type.block_len() * self.ops.ggml_type.block_bytes();
        Throughput::BytesDecimal((self.n * row_bytes) as u64)
    }

    /// Random blocks of ordinary size: numbers too small for a normal float make some operations slow.
    pub(crate) fn bytes(&self) -> Vec<u8> {
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

/// The ceiling of what reads much: what it takes to have seen each byte.
pub(crate) fn read(c: &mut Criterion) {
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
