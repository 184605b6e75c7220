//! What one thread makes of attention, with keys and values of each type, in a layer of 32 query heads on 8 heads of
//! 128 numbers.
//!
//! - `prefill`: 512 queries, each of which sees those before it. Throughput is in operations, two for each multiply-add
//!   that the mask leaves; Criterion calls them elements. `bound` is how many there are where nothing is loaded.
//! - `decode`: one query, the last of 4096 positions. Throughput is in bytes of keys and values, from so many layers
//!   that no cache holds them. `read/memory` is how fast a plain loop reads as many.
//!
//! ```text
//! cargo bench -p metallic-kernels --bench attention -- '/f16/avx512|bound|read'
//! ```

use std::cell::LazyCell;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use metallic_kernels::attention::{
    AttentionBuf, AttentionParams, KvLayout, KvPages, KvType, KvView, Queries, attention,
};
use metallic_kernels::{Isa, ThreadPool};

mod common;
use common::bound::bound;
use common::{PLACES, Random, config, fast_isas, read};

const N_HEAD: usize = 32;
const N_HEAD_KV: usize = 8;
const HEAD_DIM: usize = 128;
const PAGE_LEN: usize = 256;

const PARAMS: AttentionParams<'static> =
    AttentionParams { n_head: N_HEAD, scale: 0.088, softcap: None, window: None, alibi: None, sinks: None };

/// Queries of a prompt.
const N_QUERIES: usize = 512;

/// Positions that the query of `decode` sees, its own among them.
const N_POSITIONS: usize = 4096;

/// Layers with the same keys and values.
struct Layers {
    layout: KvLayout,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// The pages of one after those of another.
    table: Vec<u32>,
    n_pages: usize,
}

impl Layers {
    fn new(pool: &ThreadPool, layout: KvLayout, n_positions: usize, n_layers: usize) -> Self {
        let n_pages = n_positions.div_ceil(PAGE_LEN);
        let table: Vec<u32> = (0..(n_layers * n_pages) as u32).collect();
        let [mut keys, mut values] = layout.page_bytes().map(|bytes| vec![0; n_pages * bytes]);
        let rows = Random(1).floats(n_positions * N_HEAD_KV * HEAD_DIM);
        let mut pages = KvPages { layout, keys: &mut keys, values: &mut values, table: &table };
        pages.store(pool, Isa::best(), 0, &rows, &rows);
        Layers { layout, keys: keys.repeat(n_layers), values: values.repeat(n_layers), table, n_pages }
    }

    fn iter(&self) -> impl Iterator<Item = KvView<'_>> + Clone {
        let Layers { layout, keys, values, table, n_pages } = self;
        table.chunks_exact(*n_pages).map(|table| KvView { layout: *layout, keys, values, table })
    }
}

fn layout(kv_type: KvType) -> KvLayout {
    KvLayout::new(kv_type, PAGE_LEN, N_HEAD_KV, HEAD_DIM, HEAD_DIM).expect("small pages")
}

fn prefill(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let Ok(pool) = ThreadPool::new(1) else { return };
    let n_visible = N_QUERIES * (N_QUERIES + 1) / 2;
    group.throughput(Throughput::Elements((2 * 2 * HEAD_DIM * N_HEAD * n_visible) as u64));
    let q = Random(2).floats(N_QUERIES * N_HEAD * HEAD_DIM);
    let mut out = vec![0.0; q.len()];
    for kv_type in KvType::ALL {
        let layers = LazyCell::new(|| Layers::new(&pool, layout(kv_type), N_QUERIES, 1));
        for isa in fast_isas() {
            let mut buf = AttentionBuf::default();
            group.bench_function(format!("prefill/{kv_type}/{isa}"), |b| {
                let layers = &*layers;
                let queries = Queries { rows: &q, first: 0, in_tiles: true };
                b.iter(|| {
                    layers
                        .iter()
                        .for_each(|kv| attention(&pool, isa, &PARAMS, queries, &kv, &mut buf, &mut out));
                });
            });
        }
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let Ok(pool) = ThreadPool::new(1) else { return };
    let q = Random(2).floats(N_HEAD * HEAD_DIM);
    let mut out = vec![0.0; q.len()];
    for kv_type in KvType::ALL {
        let layout = layout(kv_type);
        let n_bytes = N_POSITIONS / PAGE_LEN * layout.page_bytes().iter().sum::<usize>();
        group.throughput(Throughput::BytesDecimal(n_bytes as u64));
        let layers = LazyCell::new(|| Layers::new(&pool, layout, N_POSITIONS, PLACES[1].1.div_ceil(n_bytes)));
        for isa in fast_isas() {
            let mut buf = AttentionBuf::default();
            group.bench_function(format!("decode/{kv_type}/{isa}"), |b| {
                let mut layers = layers.iter().cycle();
                let queries = Queries { rows: &q, first: N_POSITIONS - 1, in_tiles: false };
                b.iter(|| {
                    let Some(kv) = layers.next() else { return };
                    attention(&pool, isa, &PARAMS, queries, &kv, &mut buf, &mut out);
                });
            });
        }
    }
}

criterion_group!(name = benches; config = config(); targets = bound, read, prefill, decode);
criterion_main!(benches);
