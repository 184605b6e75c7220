//! A tile of queries that share a key head, against one step of positions.

use std::ops::Range;

use super::product::{Products, Queries, Scores, Sums, Values, Weights};
use super::softmax::Softmax;
use super::{AttentionParams, GROUP, KvView, POSITIONS, ROWS};
use crate::activation;
use crate::isa::Isa;

/// What all tiles of a call have in common.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) params: &'a AttentionParams,
    pub(super) isa: Isa,
    pub(super) products: Products,
    pub(super) kv: &'a KvView<'a>,
}

/// Up to [`ROWS`] rows, each a head of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub(super) head_kv: usize,
    pub(super) n_rows: usize,
    /// The position of each row's query, in order.
    pub(super) positions: [usize; ROWS],
    /// Where the sums of each row begin.
    pub(super) starts: [usize; ROWS],
    /// Of the steps so far.
    pub(super) softmax: [Softmax; ROWS],
}

impl Call<'_> {
    /// The positions that a query at `position` sees.
    pub(super) fn visible(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        self.params.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// The steps that queries at positions from `first` to `last` see something of.
    pub(super) fn steps(&self, first: usize, last: usize) -> Range<usize> {
        self.visible(first).start / POSITIONS..last / POSITIONS + 1
    }

    /// Adds the positions of a step to a tile's sums in `out`.
    pub(super) fn add_step(&self, tile: &mut Tile, queries: &Queries, step: usize, out: &mut [f32]) {
        self.attend(tile, queries, step, true, out);
    }

    /// Writes the sums over a step alone.
    pub(super) fn only_step(&self, tile: &mut Tile, queries: &Queries, step: usize, out: &mut [f32]) {
        self.attend(tile, queries, step, false, out);
    }

    fn attend(&self, tile: &mut Tile, queries: &Queries, step: usize, add: bool, out: &mut [f32]) {
        let start = step * POSITIONS;
        let in_step = |position: usize| position.saturating_sub(start).min(POSITIONS);
        let visible = |position: usize| {
            let Range { start, end } = self.visible(position);
            in_step(start)..in_step(end)
        };
        let n_rows = tile.n_rows;
        let seen = visible(tile.positions[0]).start..visible(tile.positions[n_rows - 1]).end;
        if seen.is_empty() {
            return;
        }
        let [keys, values] = self.kv.step(step, tile.head_kv);
        let group_bytes = keys.len() / (POSITIONS / GROUP);
        let groups = seen.start / GROUP..seen.end.div_ceil(GROUP);
        let keys = &keys[groups.start * group_bytes..groups.end * group_bytes];
        let mut weights: Weights = [[0.0; POSITIONS]; ROWS];
        let scores = Scores { queries, n_rows, groups: keys, first: groups.start };
        (self.products.scores)(scores, &mut weights);

        let mut factors = [[1.0; 2]; ROWS];
        for row in 0..n_rows {
            let visible = visible(tile.positions[row]);
            if let Some(cap) = self.params.softcap {
                activation::softcap(self.isa, &mut weights[row][visible.clone()], cap);
            }
            let part = (self.products.weigh)(&mut weights[row], visible);
            factors[row] = tile.softmax[row].join(part);
        }

        let position_bytes = values.len() / POSITIONS;
        let values = &values[seen.start * position_bytes..seen.end * position_bytes];
        let values =
            Values { weights: &weights, first: seen.start, values, dim: self.kv.layout.head_dims()[1] };
        let fold = add.then_some(&factors);
        (self.products.values)(values, Sums { data: out, starts: &tile.starts[..n_rows], fold });
    }
}
