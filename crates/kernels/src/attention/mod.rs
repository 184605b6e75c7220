//! Attention of new tokens over the keys and values of their sequence, kept as f16 in pages.
//!
//! For each query and head the keys are taken a tile at a time with an online softmax (Milakov and
//! Gimelshein 2018): scores, running maximum, rescaled sum of values. So the memory needed does not grow
//! with the context. Tiles begin at fixed positions, which makes a query's result independent of the
//! other queries in the call and of the number of threads.
//!
//! # Layout
//! A *page* holds `page_len` consecutive positions of one layer: `[n_head_kv][page_len][head_dim]`, so
//! the keys of one head lie one after another. One slab of f16 holds the pages of all sequences, and a
//! sequence's table says which page holds its positions `page_len · i ..`. Keys and values have slabs of
//! their own, with the same pages, for their heads may differ in length.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::activation;
use crate::isa::Isa;
use crate::lanes;
use crate::pool::ThreadPool;

/// Positions in a tile: their scores stay in the first-level cache with the keys.
const TILE: usize = 128;

/// Shape and variant of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParams {
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads, a divisor of `n_head`: each serves `n_head / n_head_kv` adjacent query heads.
    pub n_head_kv: usize,
    /// Length of a query and a key.
    pub head_dim_k: usize,
    /// Length of a value.
    pub head_dim_v: usize,
    /// Factor on the scores, usually `1 / √head_dim_k`.
    pub scale: f32,
    /// Soft cap on the scaled scores: `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Sliding window: a query sees only the last so many positions, its own among them.
    pub window: Option<usize>,
}

/// The pages of one kind (keys or values) of one layer, for writing.
#[derive(Debug)]
pub struct KvPages<'a> {
    /// All pages.
    pub slab: &'a mut [f16],
    /// The sequence's pages: position `p` is in page `table[p / page_len]`.
    pub table: &'a [u32],
    /// Positions in a page.
    pub page_len: usize,
}

impl KvPages<'_> {
    /// Stores `rows`, `n_head_kv` heads of `head_dim` values for each position from `first` on, rounded
    /// to the nearest f16.
    ///
    /// # Panics
    /// If the table or the slab ends before the last position, or `rows` are not whole rows.
    pub fn store(&mut self, first: usize, rows: &[f32], n_head_kv: usize, head_dim: usize) {
        assert!(rows.len().is_multiple_of(n_head_kv * head_dim), "whole rows of keys or values");
        for (row, position) in rows.chunks_exact(n_head_kv * head_dim).zip(first..) {
            let page = self.table[position / self.page_len] as usize * n_head_kv;
            for (head, x) in row.chunks_exact(head_dim).enumerate() {
                let start = ((page + head) * self.page_len + position % self.page_len) * head_dim;
                self.slab[start..][..head_dim].convert_from_f32_slice(x);
            }
        }
    }
}

/// What a sequence attends to in one layer, for reading.
#[derive(Clone, Copy, Debug)]
pub struct KvView<'a> {
    /// Key pages, heads of `head_dim_k`.
    pub keys: &'a [f16],
    /// Value pages, heads of `head_dim_v`.
    pub values: &'a [f16],
    /// The sequence's pages: position `p` is in page `table[p / page_len]`.
    pub table: &'a [u32],
    /// Positions in a page.
    pub page_len: usize,
}

/// Attention of the queries `q`, one row of `n_head · head_dim_k` for each position from `first` on.
/// Query at position `p` sees the positions up to `p`, as far as the window allows; their keys and
/// values, its own among them, must have been stored. Writes a row of `n_head · head_dim_v` for each
/// query to `out`.
///
/// # Panics
/// If `q` and `out` are not whole rows for the same number of queries, `n_head` is not a multiple of
/// `n_head_kv`, or the table or a slab ends before the last position.
pub fn attention(
    pool: &ThreadPool,
    isa: Isa,
    params: &AttentionParams,
    q: &[f32],
    first: usize,
    kv: &KvView<'_>,
    out: &mut [f32],
) {
    let n_queries = q.len() / (params.n_head * params.head_dim_k);
    assert_eq!(q.len(), n_queries * params.n_head * params.head_dim_k, "whole rows of queries");
    assert_eq!(out.len(), n_queries * params.n_head * params.head_dim_v, "an output row for each query");
    assert!(params.n_head.is_multiple_of(params.n_head_kv), "query heads share key heads evenly");
    let kernels = Kernels::of(isa);
    pool.each_chunk(out, params.head_dim_v, &|i, out| {
        let (query, head) = (i / params.n_head, i % params.n_head);
        let head_kv = head / (params.n_head / params.n_head_kv);
        let position = first + query;
        let start = params.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let q = &q[i * params.head_dim_k..][..params.head_dim_k];
        kernels.attend(params, q, head_kv, start..position + 1, kv, out);
    });
}

/// The loops over f16, which have a twin for each instruction set.
struct Kernels {
    isa: Isa,
    /// `scores[i] = q · key i`: `(q, keys, scores)`.
    scores: fn(&[f32], &[f16], &mut [f32]),
    /// `out += Σ weights[i] · value i`: `(weights, values, out)`.
    accumulate: fn(&[f32], &[f16], &mut [f32]),
}

impl Kernels {
    fn of(isa: Isa) -> Kernels {
        match isa {
            Isa::Scalar => Kernels { isa, scores, accumulate },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => Kernels {
                isa,
                // SAFETY: an `Isa::Avx2` proves that this CPU has what the kernel is compiled for.
                scores: |q, keys, out| unsafe { avx2::scores(q, keys, out) },
                // SAFETY: as above.
                accumulate: |weights, values, out| unsafe { avx2::accumulate(weights, values, out) },
            },
        }
    }

    /// One query of one head over `positions`, of which there is at least one.
    fn attend(
        &self,
        params: &AttentionParams,
        q: &[f32],
        head_kv: usize,
        positions: Range<usize>,
        kv: &KvView<'_>,
        out: &mut [f32],
    ) {
        let (mut largest, mut sum) = (f32::NEG_INFINITY, 0.0);
        let mut weights = [0.0f32; TILE];
        out.fill(0.0);
        let mut start = positions.start;
        while start < positions.end {
            let in_page = start % kv.page_len;
            let tile_end = (in_page / TILE + 1) * TILE;
            let n = tile_end.min(kv.page_len).min(in_page + positions.end - start) - in_page;
            let row =
                (kv.table[start / kv.page_len] as usize * params.n_head_kv + head_kv) * kv.page_len + in_page;
            let keys = &kv.keys[row * params.head_dim_k..][..n * params.head_dim_k];
            let values = &kv.values[row * params.head_dim_v..][..n * params.head_dim_v];

            let weights = &mut weights[..n];
            (self.scores)(q, keys, weights);
            activation::scale(weights, params.scale);
            if let Some(cap) = params.softcap {
                activation::softcap(self.isa, weights, cap);
            }
            let (new_largest, tile_sum) = activation::exp_shifted(self.isa, weights, largest);
            let kept = activation::exp(largest - new_largest);
            activation::scale(out, kept);
            (largest, sum) = (new_largest, sum * kept + tile_sum);
            (self.accumulate)(weights, values, out);
            start += n;
        }
        activation::scale(out, 1.0 / sum);
    }
}

/// Values widened to floats at a time: the conversion looks for a faster way at every call.
const WIDENED: usize = 64;

fn scores(q: &[f32], keys: &[f16], scores: &mut [f32]) {
    let mut wide = [0.0; WIDENED];
    for (key, score) in keys.chunks_exact(q.len()).zip(scores) {
        *score = 0.0;
        for (key, q) in key.chunks(WIDENED).zip(q.chunks(WIDENED)) {
            let wide = &mut wide[..key.len()];
            key.convert_to_f32_slice(wide);
            *score += lanes::dot(wide, q);
        }
    }
}

fn accumulate(weights: &[f32], values: &[f16], out: &mut [f32]) {
    let mut wide = [0.0; WIDENED];
    for (value, weight) in values.chunks_exact(out.len()).zip(weights) {
        for (value, out) in value.chunks(WIDENED).zip(out.chunks_mut(WIDENED)) {
            let wide = &mut wide[..value.len()];
            value.convert_to_f32_slice(wide);
            for (out, v) in out.iter_mut().zip(wide) {
                *out += weight * *v;
            }
        }
    }
}
