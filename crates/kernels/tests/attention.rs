//! Attention against the definition in f64, and its independence of threads, batch and page order.

use half::bf16;
use metallic_kernels::attention::{
    AttentionBuf, AttentionParams, KvLayout, KvPages, KvType, KvView, Queries, attention,
};
use metallic_kernels::{GgmlType, Isa, ThreadPool, f16, registry};

mod common;
use common::{Random, largest_difference};

/// A sequence's keys and values, as rows of floats and in pages.
struct Context {
    params: AttentionParams<'static>,
    layout: KvLayout,
    keys: Vec<f32>,
    values: Vec<f32>,
    key_slab: Vec<u8>,
    value_slab: Vec<u8>,
    table: Vec<u32>,
}

impl Context {
    fn new(case: &Case, kv_type: KvType, pool: &ThreadPool, random: &mut Random) -> Self {
        let Case { params, n_head_kv, head_dims: [dim_k, dim_v], page_len, n } = *case;
        let layout = KvLayout::new(kv_type, page_len, n_head_kv, dim_k, dim_v).expect("small pages");
        let n_pages = n.div_ceil(page_len);
        // A page too many in the slab, and the sequence's pages in no order. Bytes of ones are not numbers.
        let mut table: Vec<u32> = (1..=n_pages as u32).collect();
        (1..n_pages).for_each(|i| table.swap(i, random.below(i + 1)));
        let slab = |page_bytes: usize| vec![0xff; (n_pages + 1) * page_bytes];
        let [key_slab, value_slab] = layout.page_bytes().map(slab);
        let (k, v) = (n_head_kv * dim_k, n_head_kv * dim_v);
        let (keys, values) = (random.floats(n * k), random.floats(n * v));
        let mut context = Context { params, layout, keys, values, key_slab, value_slab, table };
        // In three calls, as a prompt and what follows it would be.
        for range in [0..n / 2, n / 2..n - 1, n - 1..n] {
            let mut pages = KvPages {
                layout,
                keys: &mut context.key_slab,
                values: &mut context.value_slab,
                table: &context.table,
            };
            let (keys, values) = (
                &context.keys[range.start * k..range.end * k],
                &context.values[range.start * v..range.end * v],
            );
            pages.store(pool, Isa::best(), range.start, keys, values);
        }
        context
    }

    fn n_queries(&self, q: &[f32]) -> usize {
        q.len() / (self.params.n_head * self.layout.head_dims()[0])
    }

    fn run(&self, pool: &ThreadPool, (isa, in_tiles): (Isa, bool), q: &[f32], first: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.n_queries(q) * self.params.n_head * self.layout.head_dims()[1]];
        let kv = KvView {
            layout: self.layout,
            keys: &self.key_slab,
            values: &self.value_slab,
            table: &self.table,
        };
        let queries = Queries { rows: q, first, in_tiles };
        attention(pool, isa, &self.params, queries, &kv, &mut AttentionBuf::default(), &mut out);
        out
    }

    /// softmax(cap(scale · q·K)) V over the visible positions, from the rounded keys and values.
    fn definition(&self, q: &[f32], first: usize) -> Vec<f64> {
        let (p, n_head_kv, [dim_k, dim_v]) = (&self.params, self.layout.n_head_kv(), self.layout.head_dims());
        let stored = |x: &[f32], dim: usize| -> Vec<f64> {
            x.chunks_exact(dim).flat_map(|row| rounded(self.layout.kv_type(), row)).collect()
        };
        let (keys, values) = (stored(&self.keys, dim_k), stored(&self.values, dim_v));
        let mut out = Vec::new();
        for (i, q) in q.chunks_exact(dim_k).enumerate() {
            let (position, head_kv) = (first + i / p.n_head, i % p.n_head * n_head_kv / p.n_head);
            let visible: Vec<usize> =
                (0..=position).filter(|k| p.window.is_none_or(|window| position - k < window)).collect();
            let at = |k: usize, n: usize| (k * n_head_kv + head_kv) * n..(k * n_head_kv + head_kv + 1) * n;
            // Queries meet bfloat16 as bfloat16, and blocks as 8-bit integers with a scale for each 32.
            let scaled: Vec<f32> = q.iter().map(|q| q * p.scale).collect();
            let q = match self.layout.kv_type() {
                KvType::BF16 => rounded(KvType::BF16, &scaled),
                KvType::Q8_0 | KvType::Q4_0 => scaled.chunks(32).flat_map(eight_bits).collect(),
                KvType::F32 | KvType::F16 => rounded(KvType::F32, &scaled),
            };
            let slope = |head: usize| match p.alibi {
                None => 0.0,
                // Six heads: 2^(−8/4), 2^(−16/4) and so on, then those halfway: 2^(−4/4), 2^(−12/4).
                Some(bias) => {
                    [1.0, 2.0, 3.0, 4.0, 0.5, 1.5].map(|n| (-n * f64::from(bias) / 4.0).exp2())[head]
                }
            };
            let head = i % p.n_head;
            let sink = p.sinks.map(|sinks| f64::from(sinks[head]));
            let score = |&k: &usize| {
                let s = q.iter().zip(&keys[at(k, dim_k)]).map(|(q, k)| q * k).sum::<f64>();
                let s = p.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh());
                s - slope(head) * (position - k) as f64
            };
            let scores: Vec<f64> = visible.iter().map(score).collect();
            let largest = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - largest).exp());
            let mut sum = vec![0.0; dim_v];
            for (&k, weight) in visible.iter().zip(&weights) {
                let value = &values[at(k, dim_v)];
                sum.iter_mut().zip(value).for_each(|(sum, v)| *sum += weight / total * v);
            }
            out.extend(sum);
        }
        out
    }
}

/// Up to 32 numbers as multiples of 1/127 of the largest magnitude.
fn eight_bits(x: &[f32]) -> Vec<f64> {
    let scale = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
    x.iter().map(|x| f64::from((x * (1.0 / scale)).round_ties_even()) * f64::from(scale)).collect()
}

/// What a key or value is after it was stored.
fn rounded(kv_type: KvType, x: &[f32]) -> Vec<f64> {
    let blocks = |format: GgmlType| {
        let ops = registry::ops(format, Isa::Scalar);
        let mut padded = x.to_vec();
        padded.resize(x.len().next_multiple_of(32), 0.0);
        let mut row = vec![0; padded.len() / 32 * format.block_bytes()];
        ops.encode.expect("a format that can be made")(&padded, &mut row);
        (ops.decode)(&row, &mut padded);
        padded.truncate(x.len());
        padded
    };
    let rounded: Vec<f32> = match kv_type {
        KvType::F32 => x.to_vec(),
        KvType::F16 => x.iter().map(|&x| f16::from_f32(x).to_f32()).collect(),
        KvType::BF16 => x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
        KvType::Q8_0 => blocks(GgmlType::Q8_0),
        KvType::Q4_0 => blocks(GgmlType::Q4_0),
    };
    rounded.into_iter().map(f64::from).collect()
}

const PLAIN: AttentionParams<'static> =
    AttentionParams { n_head: 1, scale: 1.0, softcap: None, window: None, alibi: None, sinks: None };

/// An attention layer and a sequence of `n` positions.
#[derive(Clone, Copy, Debug)]
struct Case {
    params: AttentionParams<'static>,
    n_head_kv: usize,
    head_dims: [usize; 2],
    page_len: usize,
    n: usize,
}

/// `n_head` query heads on `n_head_kv`, with keys and values of one length.
fn case(n_head: usize, n_head_kv: usize, head_dim: usize, n: usize) -> Case {
    let params = AttentionParams { n_head, scale: 0.7, ..PLAIN };
    Case { params, n_head_kv, head_dims: [head_dim; 2], page_len: 256, n }
}

fn cases() -> Vec<Case> {
    let plain = Case { page_len: 128, ..case(6, 2, 64, 290) };
    let window = |window: usize, case: Case| Case {
        params: AttentionParams { window: Some(window), ..case.params },
        ..case
    };
    vec![
        case(6, 2, 64, 1),
        Case { page_len: 128, ..case(6, 2, 64, 150) },
        plain,
        window(37, Case { page_len: 256, n: 300, ..plain }),
        window(1, Case { n: 140, ..plain }),
        window(128, plain),
        window(200, plain),
        Case {
            params: AttentionParams { softcap: Some(2.0), ..plain.params },
            page_len: 256,
            n: 140,
            ..plain
        },
        Case { params: AttentionParams { alibi: Some(8.0), ..plain.params }, n: 300, ..plain },
        Case {
            params: AttentionParams { sinks: Some(&[0.5, -1.0, 3.0, 0.0, 60.0, 1.0]), ..plain.params },
            ..plain
        },
        window(37, Case { params: AttentionParams { sinks: Some(&[1.0; 6]), ..plain.params }, ..plain }),
        Case {
            params: AttentionParams { n_head: 16, scale: 0.1, ..PLAIN },
            head_dims: [576, 512],
            ..case(16, 1, 0, 30)
        },
        Case { head_dims: [40, 24], page_len: 384, ..case(3, 3, 0, 400) },
        Case { head_dims: [7, 256], page_len: 128, ..case(4, 1, 0, 129) },
        Case { head_dims: [33, 65], ..case(7, 1, 0, 257) },
        case(5, 5, 80, 70),
        case(16, 2, 96, 64),
        case(26, 2, 128, 31),
        case(4, 1, 256, 129),
    ]
}

/// Each instruction set, and that with tiles a second time with them.
fn ways() -> impl Iterator<Item = (Isa, bool)> {
    let all = Isa::available();
    let amx = all.iter().copied().find(|isa| isa.name() == "amx");
    if amx.is_none() {
        assert!(std::env::var_os("METALLIC_REQUIRE_AMX").is_none(), "this CPU has no AMX");
        println!("skipped: this CPU has no AMX");
    }
    all.into_iter().map(|isa| (isa, false)).chain(amx.map(|isa| (isa, true)))
}

#[test]
fn agrees_with_the_definition_on_every_isa() {
    let pool = ThreadPool::new(2).unwrap();
    let mut random = Random(3);
    for case in cases() {
        for kv_type in KvType::ALL {
            let context = Context::new(&case, kv_type, &pool, &mut random);
            for n_queries in [1, 5, 40] {
                let n_queries = case.n.min(n_queries);
                let q = random.floats(n_queries * case.params.n_head * case.head_dims[0]);
                let first = case.n - n_queries;
                let expected = context.definition(&q, first);
                // Weights that meet bfloat16 are rounded to it, by up to one part in 2⁹; values are below 1.
                let bound = if kv_type == KvType::BF16 { 1.0 / 512.0 } else { 8e-6 };
                for way in ways() {
                    let difference = largest_difference(&context.run(&pool, way, &q, first), &expected);
                    assert!(
                        difference < bound,
                        "{way:?}, {kv_type}, {case:?}, {n_queries} queries: {difference:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let pool = ThreadPool::new(1).unwrap();
    let mut random = Random(4);
    let mut case = case(6, 2, 64, 300);
    case.params.scale = 80.0;
    let q = random.floats(case.params.n_head * case.head_dims[0]);
    for (kv_type, bound) in [(KvType::F16, 1e-4), (KvType::BF16, 1.0 / 512.0)] {
        let context = Context::new(&case, kv_type, &pool, &mut random);
        let expected = context.definition(&q, 299);
        for way in ways() {
            let difference = largest_difference(&context.run(&pool, way, &q, 299), &expected);
            assert!(difference < bound, "{way:?}, {kv_type}: {difference:e}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_batch() {
    let mut random = Random(5);
    let pools = [1, 2, 3].map(|n_threads| ThreadPool::new(n_threads).unwrap());
    for case in cases() {
        let [row, width] = case.head_dims.map(|dim| case.params.n_head * dim);
        let q = random.floats(case.n * row);
        for kv_type in KvType::ALL {
            let context = Context::new(&case, kv_type, &pools[1], &mut random);
            for way in ways() {
                let at_once = context.run(&pools[0], way, &q, 0);
                let found = context.run(&pools[2], way, &q, 0);
                assert!(found == at_once, "{way:?}, {kv_type}, 3 threads, {case:?}");
                // Tiles and steps are no multiples of seven, so at each of their places there is a query alone.
                let alone = (0..case.n).rev().step_by(7).map(|i| (&pools[1], i));
                for (pool, i) in alone.chain(pools.iter().map(|pool| (pool, case.n - 1))) {
                    let found = context.run(pool, way, &q[i * row..][..row], i);
                    let n = pool.n_threads();
                    assert!(
                        found == at_once[i * width..][..width],
                        "{way:?}, {kv_type}, {n} threads, query {i} alone, {case:?}"
                    );
                }
            }
        }
    }
}
