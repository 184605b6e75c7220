//! Attention of new tokens over the keys and values of their sequence, kept as f16 in pages.
//!
//! A *tile* is up to 12 rows, the queries of all heads that share a key head, of one position or of several.
//! All its rows read the same keys and values, 128 positions at a time, with an online softmax (Milakov and
//! Gimelshein 2018) a row, so the memory needed does not grow with the context:
//!
//! ```text
//! for each 128 positions:
//!     scores  = queries · keys               6 rows by two registers of positions, summed over the columns
//!     weights = e^(scores − largest so far)  0 where a row's query does not see the position
//!     out     = out · kept + weights · values   6 rows by two registers of columns, summed over positions
//! ```
//!
//! Both products are one function (`product.rs`): a matrix in f16 is widened as it is read, and each
//! register of it serves six rows. Positions that no row sees are skipped.
//!
//! The 128 positions begin at fixed places in a page, and each sum has one order; so a query's result
//! depends neither on the other queries in its tile or call nor on the number of threads. Positions that
//! a tile reads and one of its rows does not see count with weight 0, which supposes finite values.
//!
//! # Layout
//! A *page* holds `page_len` consecutive positions of one layer, head after head. One slab of f16 holds
//! the pages of all sequences, and a sequence's table says which page holds its positions `page_len · i ..`.
//! Keys and values have slabs of their own, with the same pages, for their heads may differ in length.
//! A head's values are `[page_len][head_dim]`. Its keys are transposed, 32 positions at a time, to
//! `[page_len / 32][head_dim][32]` (with fewer in the last group where 32 does not divide `page_len`): a
//! register then takes one column of as many keys, and each of its lanes has a score of its own.

mod pages;
mod product;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

pub use pages::{KvPages, KvView};
use product::Multiply;
use tile::{ROWS, Tile};

use crate::isa::Isa;
use crate::pool::ThreadPool;

/// Queries in a job where there are many: with any number of heads to a key head, they fill whole tiles.
const QUERIES: usize = ROWS;

/// Jobs for each thread at least: later queries see more positions, so no fixed division is even.
const JOBS: usize = 2;

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
    let (n_queries, n_heads) = job_shape(params, n_queries, pool.n_threads());
    let work = Work { params, isa, multiply: product::of(isa), q, first, kv };
    pool.each_chunk(out, n_queries * n_heads * params.head_dim_v, &|i, out| {
        let (query, head) = (i * n_queries * n_heads / params.n_head, i * n_heads % params.n_head);
        let n_queries = out.len() / (n_heads * params.head_dim_v);
        work.run(query..query + n_queries, head..head + n_heads, out);
    });
}

/// Queries and heads in a job: all heads of several queries, or those of one query that share a key head,
/// or fewer if that leaves a thread without work.
fn job_shape(params: &AttentionParams, n_queries: usize, n_threads: usize) -> (usize, usize) {
    let in_job = n_queries / (JOBS * n_threads);
    if in_job > 1 {
        return (in_job.min(QUERIES), params.n_head);
    }
    let shared = params.n_head / params.n_head_kv;
    let enough = |n: &usize| shared.is_multiple_of(*n) && n_queries * params.n_head / n >= n_threads;
    (1, (1..=shared).rev().find(enough).unwrap_or(1))
}

/// What all jobs of a call have in common.
struct Work<'a> {
    params: &'a AttentionParams,
    isa: Isa,
    multiply: Multiply,
    q: &'a [f32],
    first: usize,
    kv: &'a KvView<'a>,
}

impl Work<'_> {
    /// Computes `heads` of `queries`; `out` has a row for each query, with these heads alone.
    fn run(&self, queries: Range<usize>, heads: Range<usize>, out: &mut [f32]) {
        let AttentionParams { n_head, n_head_kv, head_dim_k, head_dim_v, .. } = *self.params;
        let shared = n_head / n_head_kv;
        let in_tile = shared.min(heads.len());
        for head in heads.clone().step_by(in_tile) {
            let n_rows = queries.len() * in_tile;
            for first_row in (0..n_rows).step_by(ROWS) {
                let n = ROWS.min(n_rows - first_row);
                let (mut positions, mut q_starts, mut out_starts) = ([0; ROWS], [0; ROWS], [0; ROWS]);
                for row in 0..n {
                    let query = (first_row + row) / in_tile;
                    let head = head + (first_row + row) % in_tile;
                    positions[row] = self.first + queries.start + query;
                    q_starts[row] = ((queries.start + query) * n_head + head) * head_dim_k;
                    out_starts[row] = (query * heads.len() + head - heads.start) * head_dim_v;
                }
                let tile = Tile {
                    params: self.params,
                    kv: self.kv,
                    head_kv: head / shared,
                    positions: &positions[..n],
                    q: self.q,
                    q_starts: &q_starts[..n],
                    out_starts: &out_starts[..n],
                };
                tile.attend(self.isa, self.multiply, out);
            }
        }
    }
}
