//! What attention needs beside its inputs and outputs, allocated once.

use std::sync::Mutex;

use super::product::Weights;
use super::tile::Tile;
#[cfg(target_arch = "x86_64")]
use super::tiles::{TileSizes, TileSpace};
use super::{KvLayout, POSITIONS, ROWS, max_queries};
use crate::buffer::grow;
use crate::isa::Isa;

/// Room for the intermediate results of [`attention`](super::attention), kept between calls.
#[derive(Debug, Default)]
pub struct AttentionBuf {
    /// One for each thread.
    pub(super) spaces: Vec<Mutex<Space>>,
    /// The sums of each step of one query.
    pub(super) parts: Vec<f32>,
}

/// What a thread needs for a job.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) tiles: Vec<Tile>,
    /// The queries of the tiles, one after another.
    pub(super) queries: Vec<[f32; ROWS]>,
    pub(super) weights: Box<Weights>,
    #[cfg(target_arch = "x86_64")]
    pub(super) in_tiles: TileSpace,
}

impl Default for Space {
    fn default() -> Self {
        let weights = Box::new([[0.0; POSITIONS]; ROWS]);
        Self {
            tiles: Vec::new(),
            queries: Vec::new(),
            weights,
            #[cfg(target_arch = "x86_64")]
            in_tiles: TileSpace::default(),
        }
    }
}

/// Lengths of the buffers.
struct Sizes {
    tiles: usize,
    queries: usize,
    parts: usize,
}

impl Sizes {
    fn new(n_head: usize, layout: &KvLayout, n_positions: usize) -> Self {
        let ([head_dim_k, head_dim_v], shared) = (layout.head_dims(), n_head / layout.n_head_kv());
        let tiles = max_queries(shared).saturating_mul(shared).div_ceil(ROWS);
        let n_steps = n_positions.div_ceil(POSITIONS);
        Self {
            tiles,
            queries: tiles.saturating_mul(layout.kv_type().n_columns(head_dim_k)),
            parts: n_head.saturating_mul(n_steps).saturating_mul(head_dim_v.saturating_add(2)),
        }
    }
}

impl AttentionBuf {
    /// Makes room for queries of `n_head` heads at positions below `n_positions`, attended to with the kernels of `isa`.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there are no tiles"))]
    pub fn reserve(
        &mut self,
        isa: Isa,
        n_threads: usize,
        n_head: usize,
        layout: &KvLayout,
        n_positions: usize,
    ) {
        let sizes = Sizes::new(n_head, layout, n_positions);
        if self.spaces.len() < n_threads {
            self.spaces.resize_with(n_threads, Mutex::default);
        }
        for space in &mut self.spaces {
            let space = space.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
            space.tiles.clear();
            space.tiles.reserve_exact(sizes.tiles);
            grow(&mut space.queries, sizes.queries, [0.0; ROWS]);
            #[cfg(target_arch = "x86_64")]
            space.in_tiles.reserve(&TileSizes::new(isa, n_head, layout));
        }
        grow(&mut self.parts, sizes.parts, 0.0);
    }

    /// Bytes that calls of [`reserve`](Self::reserve) for all of `layers` allocate: query heads and layout of
    /// each.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there are no tiles"))]
    pub fn reserved_bytes(
        isa: Isa,
        n_threads: usize,
        layers: impl IntoIterator<Item = (usize, KvLayout)>,
        n_positions: usize,
    ) -> u64 {
        let (mut space, mut parts) = ([0; 2], 0);
        #[cfg(target_arch = "x86_64")]
        let mut in_tiles = TileSizes::default();
        for (n_head, layout) in layers {
            let sizes = Sizes::new(n_head, &layout, n_positions);
            space = [space[0].max(sizes.tiles), space[1].max(sizes.queries)];
            parts = parts.max(sizes.parts);
            #[cfg(target_arch = "x86_64")]
            {
                in_tiles = in_tiles.max(TileSizes::new(isa, n_head, &layout));
            }
        }
        let bytes = |n: usize, size: usize| n.saturating_mul(size);
        let space =
            bytes(space[0], size_of::<Tile>()).saturating_add(bytes(space[1], size_of::<[f32; ROWS]>()));
        let space = space.saturating_add(size_of::<Weights>());
        #[cfg(target_arch = "x86_64")]
        let space = space.saturating_add(in_tiles.bytes());
        bytes(n_threads, space).saturating_add(bytes(parts, size_of::<f32>())) as u64
    }
}
