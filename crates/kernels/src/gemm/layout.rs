//! How panels and tiles lie in memory, and in what order they meet.
//!
//! Where the unit that multiplies is faster than the caches, long rows are met in *steps*: some blocks of many rows meet the same
//! blocks of all tokens, then the next blocks. A step's panels stay in the first-level cache while all tiles pass, and its tiles
//! in the second-level cache while all panels do. The sums rest in memory between steps, unrounded, so a result has the same bits
//! either way.

use std::num::NonZeroUsize;

use super::numbers::{Block, Numbers, Sums};
use super::{Floats, Line, PANELS, Quants, TOKENS};
use crate::isa::Isa;

/// Bytes of panels that a worker keeps in its second-level cache, a quarter of which they fill.
const PANEL_BYTES: usize = 256 << 10;

/// Bytes of a step's two panels at most: of the 48 KB that the first-level cache has on processors with AMX. Tiles are loaded past
/// it.
#[cfg(target_arch = "x86_64")]
const STEP_BYTES: usize = 40 << 10;

/// Panels of a portion, where it is multiplied in steps. Each time, a step's tiles come from the third-level cache once, and that
/// should take less time than the products.
#[cfg(target_arch = "x86_64")]
const STEP_PANELS: usize = 16;

/// The layout for some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Blocks of a row that are multiplied at once.
    pub(super) step: NonZeroUsize,
    /// Blocks from a tile to the next.
    pub(super) stride: usize,
    /// Tiles for all tokens.
    pub(super) n_tiles: usize,
    /// Panels of a portion at most.
    pub(super) n_panels: usize,
    /// Panels that are expanded before tiles meet them: all of a portion, or fewer.
    pub(super) n_expanded: usize,
    /// Sums that rest in memory.
    pub(super) n_sums: usize,
}

impl Layout {
    /// All panels of a portion, expanded together and met by whole rows.
    pub(super) fn whole<N: Numbers>(n_tokens: usize, n_blocks: usize) -> Self {
        let step = NonZeroUsize::new(n_blocks).unwrap_or(NonZeroUsize::MIN);
        let fit = PANEL_BYTES / size_of::<N::Panel>() / step;
        // As many as are multiplied together, even where that is more than the cache should hold.
        let n_panels = (fit / PANELS * PANELS).max(PANELS);
        let n_tiles = n_tokens.min(N::MAX_TOKENS).div_ceil(TOKENS);
        Layout { step, stride: n_blocks, n_tiles, n_panels, n_expanded: n_panels, n_sums: 0 }
    }

    /// Two panels at a time, in steps of some times `unit` blocks, which divide the row.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn in_steps<N: Numbers>(n_tokens: usize, n_blocks: usize, unit: usize) -> Self {
        let most = STEP_BYTES / PANELS / size_of::<N::Panel>() / unit * unit;
        let step = n_blocks.div_ceil(n_blocks.div_ceil(most).max(1)).next_multiple_of(unit);
        let step = NonZeroUsize::new(step).unwrap_or(NonZeroUsize::MIN);
        let (n_steps, n_tiles) =
            (n_blocks.div_ceil(step.get()), n_tokens.min(N::MAX_TOKENS).div_ceil(TOKENS));
        // At a multiple of a power of two, all tiles' blocks of a step would share the same lines of the cache.
        let stride = n_blocks | 1;
        let n_sums = if n_steps > 1 { n_tiles.div_ceil(2) * STEP_PANELS / PANELS } else { 1 };
        Layout { step, stride, n_tiles, n_panels: STEP_PANELS, n_expanded: PANELS, n_sums }
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
            Isa::Amx => {
                let split = Self::of::<super::numbers::Split>(n_tokens, n_blocks);
                most.or(Self::of::<super::numbers::Bf16>(n_tokens, n_blocks)).or(split)
            }
            _ => most,
        }
    }

    /// Shorter rows may take as many panels in more, but no more of the cache.
    fn of<N: Numbers>(n_tokens: usize, n_blocks: usize) -> Self {
        let Layout { step, stride, n_tiles, n_expanded, n_sums, .. } = N::layout(n_tokens, n_blocks);
        Lines {
            tiles: n_tiles * stride * N::Tile::LINES,
            panels: (n_expanded * step.get() * N::Panel::LINES).max(PANEL_BYTES / size_of::<Line>()),
            sums: n_sums * Sums::LINES,
        }
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
