//! Attention of new tokens over the keys and values of their sequence, kept in pages.
//!
//! A *tile* is up to 12 rows, the queries of all heads that share a key head, of one position or of several.
//! A *step* is 128 positions, from a multiple of 128 on. All rows of a tile meet the same keys and values of
//! a step, with a softmax of its own for each row and step:
//!
//! ```text
//! scores  = queries · keys       12 rows by two registers of positions, summed over the columns
//! weights = e^(scores − largest) 0 where a row's query does not see the position
//! sums    = weights · values     12 rows by two registers of columns, summed over the positions
//! ```
//!
//! Steps are put together in order, as in an online softmax (Milakov and Gimelshein 2018): what is relative to
//! a smaller largest score is scaled down, and divided by the sum of all weights in the end. So the memory
//! needed does not grow with the context, and steps can also be computed apart: where there are fewer queries
//! than it takes to keep all threads busy, each thread takes some of the steps, and the sums of each are kept
//! until all are there. Positions that no row of a tile sees are skipped, 32 at a time in the scores.
//!
//! Each sum has one order; so a query's result depends neither on the other queries in its tile or call nor
//! on the number of threads. Positions that a tile reads and one of its rows does not see count with
//! weight 0, which supposes finite values.
//!
//! # Layout
//! A *page* holds `page_len` consecutive positions of one layer, head after head. One slab of bytes holds
//! the pages of all sequences, and a sequence's table says which page holds its positions `page_len · i ..`.
//! Keys and values have slabs of their own, with the same pages, for their heads may differ in length.
//! A head's values are `[page_len][head_dim]`. Its keys are transposed, 32 positions at a time, to
//! `[page_len / 32][head_dim][32]`: a register then takes one column of as many keys, and each of its lanes
//! has a score of its own. Of bfloat16, two columns of keys and the values of two positions go together:
//! `[page_len / 32][head_dim / 2][32][2]` and `[page_len / 2][head_dim][2]`. Blocks of values
//! lie as a file has them, `[page_len][head_dim / 32]`; those of keys are interleaved, 32 positions at a time.

mod blocks;
mod element;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pages;
mod product;
mod scratch;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod softmax_512;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blocks::{Q4, Q8};
use half::{bf16, f16};
use pages::GROUP;
pub use pages::{KvLayout, KvPages, KvType, KvView, UnknownKvType};
use product::Products;
pub use scratch::AttentionBuf;
use scratch::Space;
use softmax::Softmax;
use tile::{Call, Tile};

use crate::activation;
use crate::isa::Isa;
use crate::pool::ThreadPool;

/// Rows in a tile: with two registers of sums each they fill AVX-512's registers, and they are a multiple of
/// most numbers of heads that share keys.
const ROWS: usize = 12;

/// Positions in a step: keys, values and scores stay in the nearest caches while all tiles of a job use them.
const POSITIONS: usize = 128;

/// Tiles of a key head in a job where there are many queries: they share what they read.
const TILES: usize = 4;

/// Jobs for each thread at least: later queries see more positions, so no fixed division is even.
const JOBS: usize = 4;

/// Variant of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionParams<'a> {
    /// Query heads: a multiple of the key and value heads, of which each serves as many adjacent ones.
    pub n_head: usize,
    /// Factor on the scores, usually `1 / √head_dim_k`.
    pub scale: f32,
    /// Soft cap on the scaled scores: `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Sliding window: a query sees only the last so many positions, its own among them.
    pub window: Option<usize>,
    /// Attention with linear biases (Press et al. 2022): the score of a position falls by its distance times the
    /// head's slope. This is the logarithm of the least slope to the base of one half: 8 as published.
    pub alibi: Option<f32>,
    /// A score for each head that counts in the softmax, but belongs to no position (Xiao et al. 2023).
    pub sinks: Option<&'a [f32]>,
}

impl AttentionParams<'_> {
    /// By how much a head's scores fall with each position of distance: powers of two for as many heads as a power of
    /// two, and those halfway between them for the rest.
    fn slope(&self, head: usize) -> Option<f32> {
        let even = 1 << self.n_head.ilog2();
        let (step, place) = if head < even { (1.0, head + 1) } else { (0.5, 2 * (head - even) + 1) };
        self.alibi.map(|bias| (-bias * step * place as f32 / even as f32).exp2())
    }

    /// The positions that a query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// What the scores of a query with a head are changed by before the softmax: those of the positions from `first` on.
    fn adjust(&self, isa: Isa, head: usize, position: usize, first: usize, scores: &mut [f32]) {
        if let Some(cap) = self.softcap {
            activation::softcap(isa, scores, cap);
        }
        if let Some(slope) = self.slope(head) {
            let distance = position as f32 - first as f32;
            scores.iter_mut().enumerate().for_each(|(i, score)| *score -= slope * (distance - i as f32));
        }
    }

    /// What the sums of a head must be multiplied by when all its positions are in.
    fn finish(&self, head: usize, softmax: &mut Softmax) -> f32 {
        let factors = self.sinks.map(|sinks| softmax.join(Softmax { largest: sinks[head], sum: 1.0 }));
        factors.map_or(1.0, |[factor, _]| factor) / softmax.sum
    }
}

/// Queries of consecutive positions.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// A row of `n_head · head_dim_k` for each position.
    pub rows: &'a [f32],
    /// The first position.
    pub first: usize,
    /// Whether they are rows of a prompt that is multiplied in tiles: if so, they attend in tiles, too, where the instruction set
    /// has some for keys and values of this type and size. Its sums have another order, and queries and weights are rounded to
    /// bfloat16, so this must not depend on how many queries there are.
    pub in_tiles: bool,
}

/// Attention of some queries. That at position `p` sees the positions up to `p`, as far as the window allows; their keys and
/// values, its own among them, must have been stored. Writes a row of `n_head · head_dim_v` for each
/// query to `out`. `buf` is made larger where it has not been [reserved](AttentionBuf::reserve) for this.
///
/// # Panics
/// If the queries and `out` are not whole rows for the same number of positions, `n_head` is not a multiple of
/// `n_head_kv`, or the table or a slab ends before the last position.
pub fn attention(
    pool: &ThreadPool,
    isa: Isa,
    params: &AttentionParams<'_>,
    queries: Queries<'_>,
    kv: &KvView<'_>,
    buf: &mut AttentionBuf,
    out: &mut [f32],
) {
    let Queries { rows: q, first, .. } = queries;
    let (n_head_kv, [head_dim_k, head_dim_v]) = (kv.layout.n_head_kv(), kv.layout.head_dims());
    let [q_width, out_width] = [head_dim_k, head_dim_v].map(|dim| params.n_head * dim);
    let n_queries = q.len() / q_width;
    assert_eq!(q.len(), n_queries * q_width, "whole rows of queries");
    assert_eq!(out.len(), n_queries * out_width, "an output row for each query");
    assert!(params.n_head.is_multiple_of(n_head_kv), "query heads share key heads evenly");
    assert!(params.sinks.is_none_or(|sinks| sinks.len() == params.n_head), "a sink for each head");
    let products = match kv.layout.kv_type() {
        KvType::F32 => Products::of::<f32>(isa),
        KvType::F16 => Products::of::<f16>(isa),
        KvType::BF16 => Products::of::<[bf16; 2]>(isa),
        KvType::Q8_0 => blocks::products::<Q8>(isa),
        KvType::Q4_0 => blocks::products::<Q4>(isa),
    };
    let call = Call { params, isa, products, kv };
    buf.reserve(isa, pool.n_threads(), params.n_head, &kv.layout, first + n_queries);
    #[cfg(target_arch = "x86_64")]
    if let Some(division) = tiles::Division::of(isa, &kv.layout)
        && queries.in_tiles
    {
        return tiles::TileCall { params, isa, kv, queries, division }.run(pool, &buf.spaces, out);
    }
    if n_queries > JOBS * pool.n_threads() {
        return call.by_queries(pool, q, first, &buf.spaces, out);
    }
    for (i, (q, out)) in q.chunks_exact(q_width).zip(out.chunks_exact_mut(out_width)).enumerate() {
        call.by_steps(pool, q, first + i, &buf.spaces, &mut buf.parts, out);
    }
}

/// Queries in a job of [`Call::by_queries`] at most: with any number of heads to a key head, they fill whole
/// tiles, as many as should share what they read.
fn max_queries(shared: usize) -> usize {
    ROWS * TILES.div_ceil(shared)
}

impl Call<'_> {
    /// Columns that the queries become.
    fn n_columns(&self) -> usize {
        self.kv.layout.kv_type().n_columns(self.kv.layout.head_dims()[0])
    }

    /// Heads that share a key head.
    fn shared(&self) -> usize {
        self.params.n_head / self.kv.layout.n_head_kv()
    }

    /// Shares out the queries: a job is some of them with all their heads.
    fn by_queries(
        &self,
        pool: &ThreadPool,
        q: &[f32],
        first: usize,
        spaces: &[Mutex<Space>],
        out: &mut [f32],
    ) {
        let [q_width, out_width] = self.kv.layout.head_dims().map(|dim| self.params.n_head * dim);
        let n = (q.len() / q_width / (JOBS * pool.n_threads())).clamp(1, max_queries(self.shared()));
        let jobs = q.chunks(n * q_width).zip(out.chunks_mut(n * out_width));
        // The last queries see the most: they begin, and what ends last is a small job.
        let jobs = Mutex::new(jobs.enumerate().rev());
        pool.run(&|worker| {
            let mut space = lock(&spaces[worker]);
            loop {
                let next = lock(&jobs).next();
                let Some((i, (q, out))) = next else { break };
                self.run(q, first + i * n, &mut space, out);
            }
        });
    }

    /// All heads of some queries.
    fn run(&self, q: &[f32], first: usize, space: &mut Space, out: &mut [f32]) {
        let (n_head_kv, [head_dim_k, head_dim_v]) = (self.kv.layout.n_head_kv(), self.kv.layout.head_dims());
        let n_queries = q.len() / (self.params.n_head * head_dim_k);
        out.fill(0.0);
        for head_kv in 0..n_head_kv {
            let Space { tiles, queries, weights, .. } = &mut *space;
            self.tiles(head_kv, first, n_queries, tiles);
            self.pack(q, first, tiles, queries);
            for step in self.steps(first, first + n_queries - 1) {
                let step = self.kv.step(step, head_kv);
                for (tile, queries) in tiles.iter_mut().zip(queries.chunks_exact(self.n_columns())) {
                    self.attend(tile, queries, &step, weights, true, out);
                }
            }
            for tile in tiles {
                for row in 0..tile.n_rows {
                    let factor = self.params.finish(tile.heads[row], &mut tile.softmax[row]);
                    activation::scale(&mut out[tile.starts[row]..][..head_dim_v], factor);
                }
            }
        }
    }

    /// The tiles of one key head, with their sums in rows of all heads.
    fn tiles(&self, head_kv: usize, first: usize, n_queries: usize, tiles: &mut Vec<Tile>) {
        let (shared, dim) = (self.shared(), self.kv.layout.head_dims()[1]);
        tiles.clear();
        for first_row in (0..n_queries * shared).step_by(ROWS) {
            let mut tile = Tile {
                n_rows: ROWS.min(n_queries * shared - first_row),
                heads: [0; ROWS],
                positions: [0; ROWS],
                starts: [0; ROWS],
                softmax: [Softmax::NONE; ROWS],
            };
            for row in 0..tile.n_rows {
                let (query, head) = ((first_row + row) / shared, (first_row + row) % shared);
                tile.heads[row] = head_kv * shared + head;
                tile.positions[row] = first + query;
                tile.starts[row] = (query * self.params.n_head + tile.heads[row]) * dim;
            }
            tiles.push(tile);
        }
    }

    /// The scaled queries of tiles, column by column.
    fn pack(&self, q: &[f32], first: usize, tiles: &[Tile], queries: &mut [[f32; ROWS]]) {
        let dim = self.kv.layout.head_dims()[0];
        for (tile, columns) in tiles.iter().zip(queries.chunks_exact_mut(self.n_columns())) {
            for row in 0..tile.n_rows {
                let query = tile.positions[row] - first;
                let q = &q[(query * self.params.n_head + tile.heads[row]) * dim..][..dim];
                let chunks = columns.chunks_mut(self.kv.layout.kv_type().n_columns(POSITIONS));
                for (columns, q) in chunks.zip(q.chunks(POSITIONS)) {
                    let mut scaled = [0.0; POSITIONS];
                    scaled.iter_mut().zip(q).for_each(|(scaled, x)| *scaled = x * self.params.scale);
                    (self.products.pack_query)(&mut scaled);
                    columns.iter_mut().zip(scaled).for_each(|(column, x)| column[row] = x);
                }
            }
        }
    }

    /// Shares out the steps of one query: the sums of each go to `parts`, and are then put together.
    fn by_steps(
        &self,
        pool: &ThreadPool,
        q: &[f32],
        position: usize,
        spaces: &[Mutex<Space>],
        parts: &mut [f32],
        out: &mut [f32],
    ) {
        let (n_head_kv, [_, head_dim_v]) = (self.kv.layout.n_head_kv(), self.kv.layout.head_dims());
        let (shared, steps) = (self.shared(), self.steps(position, position));
        // A row of a part: the sums, then the largest score and the sum of the weights.
        let row_len = head_dim_v + 2;
        let n_parts = n_head_kv * steps.len();
        let parts = &mut parts[..n_parts * shared * row_len];
        let in_job = n_parts.div_ceil(pool.n_threads());
        let part_at = |part: usize| (part / steps.len(), steps.start + part % steps.len());
        pool.each_chunk(parts, in_job * shared * row_len, &|job, parts| {
            let mut space = lock(&spaces[job]);
            let mut head_of_tiles = None;
            for (i, part) in parts.chunks_exact_mut(shared * row_len).enumerate() {
                let (head_kv, step) = part_at(job * in_job + i);
                let Space { tiles, queries, weights, .. } = &mut *space;
                if head_of_tiles != Some(head_kv) {
                    self.tiles(head_kv, position, 1, tiles);
                    self.pack(q, position, tiles, queries);
                    head_of_tiles = Some(head_kv);
                }
                let mut step = self.kv.step(step, head_kv);
                if i + 1 < in_job && job * in_job + i + 1 < n_parts {
                    let (head_kv, next) = part_at(job * in_job + i + 1);
                    step.next = self.kv.step(next, head_kv).keys;
                }
                for (i, (tile, queries)) in
                    tiles.iter_mut().zip(queries.chunks_exact(self.n_columns())).enumerate()
                {
                    tile.softmax = [Softmax::NONE; ROWS];
                    tile.starts = std::array::from_fn(|row| (i * ROWS + row) * row_len);
                    self.attend(tile, queries, &step, weights, false, part);
                    for (softmax, &start) in tile.softmax.iter().zip(&tile.starts).take(tile.n_rows) {
                        part[start + head_dim_v..][..2].copy_from_slice(&[softmax.largest, softmax.sum]);
                    }
                }
            }
        });
        for (head, out) in out.chunks_exact_mut(head_dim_v).enumerate() {
            let parts =
                parts[head / shared * steps.len() * shared * row_len..].chunks_exact(shared * row_len);
            let mut softmax = Softmax::NONE;
            out.fill(0.0);
            for part in parts.take(steps.len()) {
                let (sums, rest) = part[head % shared * row_len..][..row_len].split_at(head_dim_v);
                let factors = softmax.join(Softmax { largest: rest[0], sum: rest[1] });
                (self.products.fold)(out, sums, factors);
            }
            activation::scale(out, self.params.finish(head, &mut softmax));
        }
    }
}

/// Nothing these locks guard is ever read by a later job before it is written, so a panic does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
