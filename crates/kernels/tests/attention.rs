//! Attention against the definition in f64, and its independence of threads, batch and page order.

use metallic_kernels::attention::{AttentionParams, KvPages, KvView, attention};
use metallic_kernels::{Isa, ThreadPool, f16};

mod common;
use common::{Random, largest_difference};

/// A sequence's keys and values, as rows of floats and in pages.
struct Context {
    params: AttentionParams,
    page_len: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
    key_slab: Vec<f16>,
    value_slab: Vec<f16>,
    table: Vec<u32>,
}

impl Context {
    fn new(params: AttentionParams, page_len: usize, n: usize, random: &mut Random) -> Self {
        let n_pages = n.div_ceil(page_len);
        // A page too many in the slab, and the sequence's pages in no order.
        let mut table: Vec<u32> = (1..=n_pages as u32).collect();
        (1..n_pages).for_each(|i| table.swap(i, random.below(i + 1)));
        let (k, v) = (params.n_head_kv * params.head_dim_k, params.n_head_kv * params.head_dim_v);
        let mut context = Context {
            params,
            page_len,
            keys: random.floats(n * k),
            values: random.floats(n * v),
            key_slab: vec![f16::NAN; (n_pages + 1) * page_len * k],
            value_slab: vec![f16::NAN; (n_pages + 1) * page_len * v],
            table,
        };
        // In two calls, as a prompt and what follows it would be.
        for range in [0..n / 2, n / 2..n] {
            let mut pages = KvPages { slab: &mut context.key_slab, table: &context.table, page_len };
            pages.store_keys(
                range.start,
                &context.keys[range.start * k..range.end * k],
                params.n_head_kv,
                params.head_dim_k,
            );
            let mut pages = KvPages { slab: &mut context.value_slab, table: &context.table, page_len };
            pages.store_values(
                range.start,
                &context.values[range.start * v..range.end * v],
                params.n_head_kv,
                params.head_dim_v,
            );
        }
        context
    }

    fn run(&self, pool: &ThreadPool, isa: Isa, q: &[f32], first: usize) -> Vec<f32> {
        let n_queries = q.len() / (self.params.n_head * self.params.head_dim_k);
        let mut out = vec![f32::NAN; n_queries * self.params.n_head * self.params.head_dim_v];
        let kv = KvView {
            keys: &self.key_slab,
            values: &self.value_slab,
            table: &self.table,
            page_len: self.page_len,
        };
        attention(pool, isa, &self.params, q, first, &kv, &mut out);
        out
    }

    /// softmax(cap(scale · q·K)) V over the visible positions, from the f16-rounded keys and values.
    fn definition(&self, q: &[f32], first: usize) -> Vec<f64> {
        let p = &self.params;
        let rounded = |x: f32| f64::from(f16::from_f32(x).to_f32());
        let mut out = Vec::new();
        for (i, q) in q.chunks_exact(p.head_dim_k).enumerate() {
            let (position, head_kv) = (first + i / p.n_head, i % p.n_head * p.n_head_kv / p.n_head);
            let visible: Vec<usize> =
                (0..=position).filter(|k| p.window.is_none_or(|window| position - k < window)).collect();
            let row = |x: &[f32], k: usize, n: usize| -> Vec<f64> {
                x[(k * p.n_head_kv + head_kv) * n..][..n].iter().map(|&x| rounded(x)).collect()
            };
            let score = |&k: &usize| {
                let key = row(&self.keys, k, p.head_dim_k);
                let s = f64::from(p.scale) * q.iter().zip(key).map(|(&q, k)| f64::from(q) * k).sum::<f64>();
                p.softcap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            };
            let weights: Vec<f64> = visible.iter().map(|k| score(k).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sum = vec![0.0; p.head_dim_v];
            for (&k, weight) in visible.iter().zip(&weights) {
                let value = row(&self.values, k, p.head_dim_v);
                sum.iter_mut().zip(value).for_each(|(sum, v)| *sum += weight / total * v);
            }
            out.extend(sum);
        }
        out
    }
}

fn variants() -> Vec<(AttentionParams, usize, usize)> {
    let plain = AttentionParams {
        n_head: 6,
        n_head_kv: 2,
        head_dim_k: 64,
        head_dim_v: 64,
        scale: 0.7,
        softcap: None,
        window: None,
    };
    vec![
        (plain, 256, 1),
        (plain, 16, 150),
        (plain, 256, 530),
        (AttentionParams { window: Some(37), ..plain }, 256, 300),
        (AttentionParams { window: Some(1), ..plain }, 16, 40),
        (AttentionParams { softcap: Some(2.0), ..plain }, 256, 140),
        (AttentionParams { n_head: 3, n_head_kv: 3, head_dim_k: 40, head_dim_v: 24, ..plain }, 100, 260),
        (AttentionParams { n_head: 4, n_head_kv: 1, head_dim_k: 7, head_dim_v: 256, ..plain }, 3, 20),
    ]
}

#[test]
fn agrees_with_the_definition_on_every_isa() {
    let pool = ThreadPool::new(2).unwrap();
    let mut random = Random(3);
    for (params, page_len, n) in variants() {
        let context = Context::new(params, page_len, n, &mut random);
        let n_queries = n.min(5);
        let q = random.floats(n_queries * params.n_head * params.head_dim_k);
        let expected = context.definition(&q, n - n_queries);
        for isa in Isa::available() {
            let out = context.run(&pool, isa, &q, n - n_queries);
            let difference = largest_difference(&out, &expected);
            assert!(difference < 2e-6, "{isa}, {params:?}, {n} positions: {difference:e}");
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let pool = ThreadPool::new(1).unwrap();
    let mut random = Random(4);
    let params = AttentionParams { scale: 400.0, ..variants()[0].0 };
    let context = Context::new(params, 64, 300, &mut random);
    let q = random.floats(params.n_head * params.head_dim_k);
    let expected = context.definition(&q.iter().map(|q| q * 0.2).collect::<Vec<_>>(), 299);
    for isa in Isa::available() {
        let out = context.run(&pool, isa, &q.iter().map(|q| q * 0.2).collect::<Vec<_>>(), 299);
        assert!(largest_difference(&out, &expected) < 1e-4);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_batch() {
    let mut random = Random(5);
    for (params, page_len, n) in variants() {
        let context = Context::new(params, page_len, n, &mut random);
        let row = params.n_head * params.head_dim_k;
        let q = random.floats(n * row);
        for isa in Isa::available() {
            let pool = ThreadPool::new(1).unwrap();
            let one_by_one: Vec<f32> =
                q.chunks_exact(row).enumerate().flat_map(|(i, q)| context.run(&pool, isa, q, i)).collect();
            for n_threads in 1..=3 {
                let pool = ThreadPool::new(n_threads).unwrap();
                assert_eq!(
                    context.run(&pool, isa, &q, 0),
                    one_by_one,
                    "{isa}, {n_threads} threads, {params:?}"
                );
            }
        }
    }
}
