//! A tile of queries that share a key head, against one step of positions.

use std::ops::Range;

use super::pages::Step;
use super::product::{Products, Queries, Scores, Sums, Values, Weights};
use super::softmax::Softmax;
use super::{AttentionParams, GROUP, KvView, POSITIONS, ROWS};
use crate::isa::Isa;

/// What all tiles of a call have in common.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) params: &'a AttentionParams<'a>,
    pub(super) isa: Isa,
    pub(super) products: Products,
    pub(super) kv: &'a KvView<'a>,
}

/// Up to [`ROWS`] rows, each a head of a query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub(super) n_rows: usize,
    /// The query head of each row.
    pub(super) heads: [usize; ROWS],
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
        self.params.visible(position)
    }

    /// The steps that queries at positions from `first` to `last` see something of.
    pub(super) fn steps(&self, first: usize, last: usize) -> Range<usize> {
        self.visible(first).start / POSITIONS..last / POSITIONS + 1
    }

    /// Sums the values of a step for a tile: adds them to the sums so far in `out`, or writes them over what
    /// is there.
    pub(super) fn attend(
        &self,
        tile: &mut Tile,
        queries: &Queries,
        step: &Step<'_>,
        weights: &mut Weights,
        add: bool,
        out: &mut [f32],
    ) {
        if let Some((values, factors)) = self.weights(tile, queries, step, weights) {
            let sums = Sums { data: out, starts: &tile.starts[..tile.n_rows], fold: add.then_some(&factors) };
            (self.products.values)(values, sums);
        }
    }

    /// The weights of a step, together with the values that they belong to, and what each row's sums so far
    /// and those of this step must be multiplied by. `None` where the tile sees nothing.
    fn weights<'w>(
        &self,
        tile: &mut Tile,
        queries: &Queries,
        step: &Step<'w>,
        weights: &'w mut Weights,
    ) -> Option<(Values<'w>, [[f32; 2]; ROWS])> {
        let start = step.number * POSITIONS;
        let in_step = |position: usize| position.saturating_sub(start).min(POSITIONS);
        let visible = |position: usize| {
            let Range { start, end } = self.visible(position);
            in_step(start)..in_step(end)
        };
        let n_rows = tile.n_rows;
        let seen = visible(tile.positions[0]).start..visible(tile.positions[n_rows - 1]).end;
        if seen.is_empty() {
            return None;
        }
        let Step { keys, values, next, .. } = *step;
        // Values are fetched while their keys are read, and what comes next while they are.
        let [to_values, to_next] = [distance(keys, values), distance(values, next)];
        let group_bytes = keys.len() / (POSITIONS / GROUP);
        let groups = seen.start / GROUP..seen.end.div_ceil(GROUP);
        let keys = &keys[groups.start * group_bytes..groups.end * group_bytes];
        let scores = Scores { queries, n_rows, groups: keys, first: groups.start, ahead: to_values };
        (self.products.scores)(scores, weights);

        let mut factors = [[1.0; 2]; ROWS];
        for row in 0..n_rows {
            let visible = visible(tile.positions[row]);
            let scores = &mut weights[row][visible.clone()];
            let (head, position, first) = (tile.heads[row], tile.positions[row], start + visible.start);
            self.params.adjust(self.isa, head, position, first, scores);
            let part = (self.products.weigh)(&mut weights[row], visible);
            (self.products.pack)(&mut weights[row]);
            factors[row] = tile.softmax[row].join(part);
        }

        // Whole pairs, where there are pairs: what is not seen has no weight.
        let numbers = self.products.numbers;
        let (first, end) = (seen.start / numbers, seen.end.div_ceil(numbers));
        let step_bytes = values.len() / (POSITIONS / numbers);
        let values = &values[first * step_bytes..end * step_bytes];
        let values = Values { weights, first, values, dim: self.kv.layout.head_dims()[1], ahead: to_next };
        Some((values, factors))
    }
}

/// From where one lies to where the other does, in bytes; wraps around.
fn distance(from: &[u8], to: &[u8]) -> usize {
    to.as_ptr().addr().wrapping_sub(from.as_ptr().addr())
}
