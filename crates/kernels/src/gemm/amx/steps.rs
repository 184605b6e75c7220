//! Products of the tiles of many tokens with two panels at a time, in steps.

use std::ops::Range;

use super::super::numbers::{Bf16Panel, Bf16Tile, Numbers, Sums as Resting};
use super::super::work::{Portion, Space};
use super::super::{PANELS, ROWS, TOKENS};
use crate::tiles::{Operand, ROW_BYTES, Sums, Tiles};

/// Rows whose panels are multiplied together.
const GROUP_ROWS: usize = PANELS * ROWS;

/// Tokens whose tiles are multiplied together.
const GROUP_TOKENS: usize = 2 * TOKENS;

/// A step of up to two panels and two tiles. Products take as long where there are fewer rows and tokens.
struct Group<'a, N: Numbers> {
    rows: Range<usize>,
    tokens: Range<usize>,
    panels: &'a [N::Panel],
    /// Blocks of the first tile, and as many of the second a stride further on.
    tiles: &'a [N::Tile],
    /// Whether it is the first step, and the last.
    begins: bool,
    ends: bool,
}

/// For kinds of numbers whose panels and tiles are as many of bfloat16, one after another.
impl<N: Numbers<Multiply = ()>> Portion<'_, N> {
    /// So many.
    const PARTS: usize = const {
        let parts = size_of::<N::Panel>() / size_of::<Bf16Panel>();
        assert!(parts > 0 && parts * size_of::<Bf16Tile>() == size_of::<N::Tile>());
        parts
    };

    /// Step by step, expands two panels at a time and lets all tiles meet them.
    ///
    /// Where results are added to something, sums begin with that. Whole groups are stored where they belong by the unit itself.
    pub(in crate::gemm) fn multiply_in_steps(&self, unit: &Tiles, space: &mut Space<'_, N>) {
        let step = self.layout.step.get();
        let n_steps = self.n_blocks.div_ceil(step);
        let per_group = if n_steps > 1 { self.tokens.len().div_ceil(GROUP_TOKENS) } else { 0 };
        for first_block in (0..self.n_blocks).step_by(step) {
            let n_blocks = step.min(self.n_blocks - first_block);
            for (j, start) in self.rows.clone().step_by(GROUP_ROWS).enumerate() {
                let rows = start..self.rows.end.min(start + GROUP_ROWS);
                let panels = self.expand(rows.clone(), first_block, n_blocks, space.panels);
                for (i, first) in self.tokens.clone().step_by(GROUP_TOKENS).enumerate() {
                    let tokens = first..self.tokens.end.min(first + GROUP_TOKENS);
                    // With one step, one place serves all groups, one after another.
                    let resting = &mut space.sums[if n_steps > 1 { j * per_group + i } else { 0 }];
                    let first_tile = 2 * i * self.layout.stride + first_block;
                    let group = Group {
                        rows: rows.clone(),
                        tokens,
                        panels,
                        tiles: &self.tiles[first_tile..],
                        begins: first_block == 0,
                        ends: first_block + n_blocks == self.n_blocks,
                    };
                    self.multiply_group(unit, group, resting);
                }
            }
        }
    }

    #[inline(always)]
    fn multiply_group(&self, unit: &Tiles, group: Group<'_, N>, resting: &mut Resting) {
        let Group { rows, tokens, panels, tiles, begins, ends } = group;
        let n_blocks = panels.len() / rows.len().div_ceil(ROWS);
        let n_tiles = tokens.len().div_ceil(TOKENS);
        assert!(
            tiles.len() >= (n_tiles - 1) * self.layout.stride + n_blocks,
            "as many blocks of tiles as of panels"
        );
        let left = Operand {
            start: tiles.as_ptr().cast(),
            stride: ROW_BYTES,
            step: size_of::<Bf16Tile>(),
            second: self.layout.stride * size_of::<N::Tile>(),
        };
        let right = Operand {
            start: panels.as_ptr().cast(),
            stride: ROW_BYTES,
            step: size_of::<Bf16Panel>(),
            // A panel without a second is multiplied twice: there is one at most, the last of a matrix.
            second: (panels.len() - n_blocks) * size_of::<N::Panel>(),
        };
        let is_whole = rows.len() == GROUP_ROWS && tokens.len() == n_tiles * TOKENS;
        let rest = sums_at(resting.as_mut_ptr().cast(), size_of_val(&resting[0]));
        // SAFETY: nobody else has these rows.
        let place = is_whole.then(|| unsafe { self.job.place(tokens.clone(), rows.clone()) });
        let place = place.map(|(start, stride)| sums_at(start, stride * size_of::<f32>()));
        let from = if !begins {
            Some(rest)
        } else if self.job.is_plain() {
            None
        } else if let Some(place) = place
            && !self.job.has_bias()
        {
            Some(place)
        } else {
            // SAFETY: as above.
            unsafe { self.job.start(tokens.clone(), rows.clone(), resting) };
            Some(rest)
        };
        let to = place.filter(|_| ends).unwrap_or(rest);
        // Results go to lines that are in no near cache. Those of the next tokens are asked for while these are multiplied.
        let next = tokens.end..self.tokens.end.min(tokens.end + GROUP_TOKENS);
        let n_next = if ends { next.len() } else { 0 };
        let n = n_blocks * Self::PARTS;
        let meanwhile = |i: usize| {
            for token in n_next * i / n..n_next * (i + 1) / n {
                rows.clone().step_by(ROWS).for_each(|row| self.job.prefetch(next.start + token, row));
            }
        };
        // SAFETY: panels and tiles have as many blocks, as asserted; at rest there is room for two of both, and so there is at the
        // place of a whole group.
        unsafe {
            if n_tiles == 1 {
                unit.product::<false, true>(n, left, right, from, to, meanwhile);
            } else {
                unit.product::<true, true>(n, left, right, from, to, meanwhile);
            }
        }
        if ends && place.is_none() {
            // SAFETY: as above.
            unsafe { self.job.put(tokens, rows, resting) };
        }
    }
}

/// Sums of rows that are `stride` bytes apart.
fn sums_at(start: *mut f32, stride: usize) -> Sums {
    Sums { start, stride, right: ROWS * size_of::<f32>(), below: TOKENS * stride }
}
