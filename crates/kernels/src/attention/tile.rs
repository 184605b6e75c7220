//! A tile of queries that share a key head, against all the positions they see.

use std::ops::Range;

use super::pages::group;
use super::product::{Matrix, Multiply, Rows, Sums};
use super::{AttentionParams, KvView};
use crate::activation;
use crate::isa::Isa;

/// Rows in a tile: twice what a product takes at a time, and a multiple of most numbers of heads that share keys.
pub(super) const ROWS: usize = 12;

/// Positions taken at a time: their keys, values and scores stay in the nearest caches.
const POSITIONS: usize = 128;

/// Queries of one key head, a row for each query and head.
pub(super) struct Tile<'a> {
    pub(super) params: &'a AttentionParams,
    pub(super) kv: &'a KvView<'a>,
    pub(super) head_kv: usize,
    /// The position of each row's query, in order.
    pub(super) positions: &'a [usize],
    pub(super) q: &'a [f32],
    /// Where each row's query begins in `q`.
    pub(super) q_starts: &'a [usize],
    /// Where each row's output begins in `out`.
    pub(super) out_starts: &'a [usize],
}

/// The online softmax of each row: the largest score so far, and the sum of all weights relative to it.
struct Softmax {
    largest: [f32; ROWS],
    sum: [f32; ROWS],
}

impl Tile<'_> {
    pub(super) fn attend(&self, isa: Isa, multiply: Multiply, out: &mut [f32]) {
        let (dim_v, page_len) = (self.params.head_dim_v, self.kv.page_len);
        for &start in self.out_starts {
            out[start..][..dim_v].fill(0.0);
        }
        let mut softmax = Softmax { largest: [f32::NEG_INFINITY; ROWS], sum: [0.0; ROWS] };
        let mut weights = [0.0; ROWS * POSITIONS];
        // The first row sees the earliest position, the last row the latest.
        let mut start = self.visible(0).start;
        let end = self.visible(self.positions.len() - 1).end;
        while start < end {
            let in_page = start % page_len;
            let step = in_page / POSITIONS * POSITIONS..(in_page / POSITIONS + 1) * POSITIONS;
            let first = start - (in_page - step.start);
            let n = step.end.min(page_len).min(in_page + end - start) - step.start;
            self.scores(multiply, first, in_page - step.start..n, &mut weights);
            let kept = self.weigh(isa, &mut softmax, first, in_page - step.start..n, &mut weights);
            self.add_values(multiply, first, in_page - step.start..n, &weights, &kept, out);
            start = first + n;
        }
        for (&start, sum) in self.out_starts.iter().zip(softmax.sum) {
            activation::scale(&mut out[start..][..dim_v], 1.0 / sum);
        }
    }

    /// The positions that a row sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let end = self.positions[row] + 1;
        self.params.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// `weights[row][i] = q[row] · key of position first + i`, for the groups that hold one of `range`.
    fn scores(&self, multiply: Multiply, first: usize, range: Range<usize>, weights: &mut [f32]) {
        let AttentionParams { n_head_kv, head_dim_k, .. } = *self.params;
        let keys = self.kv.head(self.kv.keys, first, self.head_kv, n_head_kv, head_dim_k);
        let in_page = first % self.kv.page_len;
        let rows = Rows { data: self.q, starts: self.q_starts, len: head_dim_k };
        let mut at = range.start;
        while at < range.end {
            let group = group(in_page + at, self.kv.page_len);
            let data = &keys[group.start * head_dim_k..group.end * head_dim_k];
            let starts: [usize; ROWS] = row_starts(group.start - in_page);
            let starts = &starts[..self.positions.len()];
            multiply(
                rows,
                Matrix { data, n_columns: group.len() },
                Sums { data: weights, starts, factors: None },
            );
            at = group.end - in_page;
        }
    }

    /// Turns the scores of what each row sees into weights, and all others of `range` into 0. Returns the
    /// factors that make what was summed before relative to the new largest scores.
    fn weigh(
        &self,
        isa: Isa,
        softmax: &mut Softmax,
        first: usize,
        range: Range<usize>,
        weights: &mut [f32],
    ) -> [f32; ROWS] {
        let mut kept = [1.0; ROWS];
        for (row, weights) in weights.chunks_exact_mut(POSITIONS).take(self.positions.len()).enumerate() {
            let visible = self.visible(row);
            let start = visible.start.saturating_sub(first).clamp(range.start, range.end);
            let end = visible.end.saturating_sub(first).clamp(start, range.end);
            weights[range.start..start].fill(0.0);
            weights[end..range.end].fill(0.0);
            let seen = &mut weights[start..end];
            if seen.is_empty() {
                continue;
            }
            activation::scale(seen, self.params.scale);
            if let Some(cap) = self.params.softcap {
                activation::softcap(isa, seen, cap);
            }
            let (largest, sum) = activation::exp_shifted(isa, seen, softmax.largest[row]);
            kept[row] = activation::exp(softmax.largest[row] - largest);
            softmax.sum[row] = softmax.sum[row] * kept[row] + sum;
            softmax.largest[row] = largest;
        }
        kept
    }

    /// `out[row] = out[row] · kept[row] + Σ weights[row][i] · value of position first + i`.
    fn add_values(
        &self,
        multiply: Multiply,
        first: usize,
        range: Range<usize>,
        weights: &[f32],
        kept: &[f32; ROWS],
        out: &mut [f32],
    ) {
        let AttentionParams { n_head_kv, head_dim_v, .. } = *self.params;
        let values = self.kv.head(self.kv.values, first, self.head_kv, n_head_kv, head_dim_v);
        let in_page = first % self.kv.page_len;
        let data = &values[(in_page + range.start) * head_dim_v..(in_page + range.end) * head_dim_v];
        let n = self.positions.len();
        let starts: [usize; ROWS] = row_starts(range.start);
        multiply(
            Rows { data: weights, starts: &starts[..n], len: range.len() },
            Matrix { data, n_columns: head_dim_v },
            Sums { data: out, starts: self.out_starts, factors: Some(&kept[..n]) },
        );
    }
}

/// Where column `column` of each row of weights is.
fn row_starts(column: usize) -> [usize; ROWS] {
    std::array::from_fn(|row| row * POSITIONS + column)
}
