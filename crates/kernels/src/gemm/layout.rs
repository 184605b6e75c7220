//! How panels and tiles lie in memory, and in what steps they meet.
//!
//! Tiles that fit the second-level cache are met by whole rows. For kinds of numbers that are multiplied faster than the
//! third-level cache brings tiles, those that don't fit are met in *steps*: some blocks of many rows meet the same blocks of all
//! tokens, then the next blocks. The sums rest in memory meanwhile, unrounded, so a result has the same bits either way.

use std::num::NonZeroUsize;

use super::numbers::{Block, Numbers};
use super::{Floats, Line, PANELS, Products, Quants, TILES, TOKENS};
use crate::isa::Isa;

/// Bytes of panels that a worker keeps in its second-level cache, a quarter of which they fill.
const PANEL_BYTES: usize = 256 << 10;

/// Bytes of tiles that stay in the second-level cache beside the panels. Processors with AMX have 2 MB of it.
const TILE_BYTES: usize = 1 << 20;

/// Panels that meet a step's tiles before the next. Each time these come from the third-level cache once, and that should take
/// less time than the products.
const STEP_PANELS: usize = 16;

/// The layout for some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Blocks of a row that are multiplied at once.
    pub(super) step: NonZeroUsize,
    /// Blocks from a tile to the next.
    pub(super) stride: usize,
    /// Panels that a worker expands at once.
    pub(super) n_panels: usize,
    /// Tiles for all tokens.
    pub(super) n_tiles: usize,
    /// Groups of products that rest in memory between steps.
    n_sums: usize,
}

impl Layout {
    pub(super) fn new<N: Numbers>(n_tokens: usize, n_blocks: usize) -> Self {
        let n_tiles = n_tokens.min(N::MAX_TOKENS).div_ceil(TOKENS);
        let step = N::STEP_BLOCKS.filter(|_| n_tiles * n_blocks * size_of::<N::Tile>() > TILE_BYTES);
        match step {
            // The steps of all tiles are an odd number apart: at a power of two they would share the same lines of the cache.
            Some(step) => Layout {
                step,
                stride: (n_blocks.div_ceil(step.get()) | 1) * step.get(),
                n_panels: STEP_PANELS,
                n_tiles,
                n_sums: n_tiles.next_multiple_of(TILES) * STEP_PANELS / PANELS,
            },
            None => {
                let step = NonZeroUsize::new(n_blocks).unwrap_or(NonZeroUsize::MIN);
                let fit = PANEL_BYTES / size_of::<N::Panel>() / step;
                // As many as are multiplied together, even where that is more than the cache should hold.
                let n_panels = (fit / PANELS * PANELS).max(PANELS);
                Layout { step, stride: n_blocks, n_panels, n_tiles, n_sums: 0 }
            }
        }
    }
}

/// Lines of the cache that the buffers of products take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    /// Of all tokens' tiles.
    pub(crate) tiles: usize,
    /// Of each worker's panels.
    pub(crate) panels: usize,
    /// Of each worker's sums.
    pub(crate) sums: usize,
}

impl Lines {
    /// For products of all kinds with rows of up to `n_blocks` blocks.
    pub(crate) fn new(isa: Isa, n_tokens: usize, n_blocks: usize) -> Self {
        let most = Self::of::<Quants>(n_tokens, n_blocks).or(Self::of::<Floats>(n_tokens, n_blocks));
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => most.or(Self::of::<super::numbers::Bf16>(n_tokens, n_blocks)),
            _ => most,
        }
    }

    fn of<N: Numbers>(n_tokens: usize, n_blocks: usize) -> Self {
        let Layout { stride, n_tiles, n_sums, .. } = Layout::new::<N>(n_tokens, n_blocks);
        // Panels of shorter rows may fill more of the cache's share than those of the longest.
        let panels = (PANELS * n_blocks * N::Panel::LINES).max(PANEL_BYTES / size_of::<Line>());
        Lines { tiles: n_tiles * stride * N::Tile::LINES, panels, sums: n_sums * Products::LINES }
    }

    /// As many as either has.
    fn or(self, other: Self) -> Self {
        Lines {
            tiles: self.tiles.max(other.tiles),
            panels: self.panels.max(other.panels),
            sums: self.sums.max(other.sums),
        }
    }
}
