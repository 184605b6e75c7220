//! Sharing out a product of matrices: which worker expands which rows, and in what order tiles are met.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Gemm, PanelBlock, ROWS, TOKENS, TileBlock};
use crate::activations::Q8Block;
use crate::matmul::MatmulJob;
use crate::pool::ThreadPool;

/// Expanded blocks that a worker keeps in its second-level cache, a quarter of which they fill.
const PANEL_BLOCKS: usize = (256 << 10) / size_of::<PanelBlock>();

/// Portions of a matrix for each worker at least, so that one that is slow holds up little.
const PORTIONS: usize = 4;

/// Tiles and panels, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    tiles: Vec<TileBlock>,
    /// One buffer a worker, which nobody else locks.
    panels: Vec<Mutex<Vec<PanelBlock>>>,
}

/// Panels that are expanded together, for rows of `n_blocks` blocks.
fn panels_at_once(n_blocks: usize) -> usize {
    (PANEL_BLOCKS / n_blocks).max(1)
}

/// Tile blocks for all tokens, and panel blocks for each worker.
fn sizes(n_tokens: usize, n_blocks: usize) -> (usize, usize) {
    (n_tokens.div_ceil(TOKENS) * n_blocks, PANEL_BLOCKS.max(n_blocks))
}

impl Scratch {
    /// Makes room for `n_tokens` rows of `n_blocks` activation blocks.
    pub(crate) fn reserve(&mut self, n_threads: usize, n_tokens: usize, n_blocks: usize) {
        let (n_tile_blocks, n_panel_blocks) = sizes(n_tokens, n_blocks);
        grow(&mut self.tiles, n_tile_blocks, TileBlock::ZERO);
        self.panels.resize_with(n_threads.max(self.panels.len()), Mutex::default);
        for panels in &mut self.panels {
            let panels = panels.get_mut().unwrap_or_else(PoisonError::into_inner);
            grow(panels, n_panel_blocks, PanelBlock::ZERO);
        }
    }

    /// Bytes that `reserve` allocates.
    pub(crate) fn reserved_bytes(n_threads: usize, n_tokens: usize, n_blocks: usize) -> u64 {
        let (n_tile_blocks, n_panel_blocks) = sizes(n_tokens, n_blocks);
        let tiles = n_tile_blocks * size_of::<TileBlock>();
        (tiles + n_threads * n_panel_blocks * size_of::<PanelBlock>()) as u64
    }
}

/// Makes a buffer at least `len` long, without room to spare.
pub(crate) fn grow<T: Clone>(buffer: &mut Vec<T>, len: usize, value: T) {
    if buffer.len() < len {
        buffer.reserve_exact(len - buffer.len());
        buffer.resize(len, value);
    }
}

/// Multiplies the matrices of `jobs`, those with a [`Gemm`], with the tokens of `x`, `n_blocks` each.
pub(crate) fn multiply(
    pool: &ThreadPool,
    jobs: &[(Gemm, &MatmulJob<'_>)],
    x: &[Q8Block],
    n_blocks: usize,
    scratch: &mut Scratch,
) {
    let n_tokens = x.len() / n_blocks;
    scratch.reserve(pool.n_threads(), n_tokens, n_blocks);
    let Scratch { tiles, panels } = scratch;
    let tiles = &mut tiles[..n_tokens.div_ceil(TOKENS) * n_blocks];
    pool.each_chunk(tiles, n_blocks, &|i, tile| {
        let x = &x[i * TOKENS * n_blocks..];
        for (token, x) in x.chunks_exact(n_blocks).take(TOKENS).enumerate() {
            x.iter().zip(&mut *tile).for_each(|(x, tile)| tile.set(token, x));
        }
    });

    let tiles = &*tiles;
    let portions: Vec<Portions> =
        jobs.iter().map(|(_, job)| Portions::new(job.n_rows(), n_blocks, pool.n_threads())).collect();
    let next = AtomicUsize::new(0);
    pool.run(&|worker| {
        let mut panels = panels[worker].lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut i = next.fetch_add(1, Ordering::Relaxed);
            let mut all = jobs.iter().zip(&portions);
            let found = all.find(|(_, portions)| {
                let here = i < portions.n;
                i -= if here { 0 } else { portions.n };
                here
            });
            let Some(((gemm, job), portions)) = found else { break };
            let first = i * portions.n_rows;
            let rows = first..(first + portions.n_rows).min(job.n_rows());
            // SAFETY: portions are disjoint, and the counter hands out each once.
            unsafe { multiply_rows(gemm, job, rows, n_tokens, tiles, n_blocks, &mut panels) };
        }
    });
}

/// How a matrix is divided: into `n` portions of `n_rows` rows, the last perhaps shorter.
struct Portions {
    n: usize,
    n_rows: usize,
}

impl Portions {
    fn new(n_rows: usize, n_blocks: usize, n_threads: usize) -> Self {
        let n_panels = n_rows.div_ceil(ROWS);
        let at_once = panels_at_once(n_blocks).min(n_panels.div_ceil(PORTIONS * n_threads)).max(1);
        Self { n: n_panels.div_ceil(at_once), n_rows: at_once * ROWS }
    }
}

/// Expands the panels of some rows, then lets each tile meet all of them.
///
/// # Safety
/// No other call at the same time may have any of `rows` of the same job.
unsafe fn multiply_rows(
    gemm: &Gemm,
    job: &MatmulJob<'_>,
    rows: std::ops::Range<usize>,
    n_tokens: usize,
    tiles: &[TileBlock],
    n_blocks: usize,
    panels: &mut [PanelBlock],
) {
    let bytes = job.row_bytes();
    let starts = rows.clone().step_by(ROWS);
    for (start, panel) in starts.clone().zip(panels.chunks_exact_mut(n_blocks)) {
        let end = (start + ROWS).min(rows.end);
        (gemm.expand)(job.rows(start..end), bytes, panel);
    }
    let mut product = [[0.0; ROWS]; TOKENS];
    for (i, tile) in tiles.chunks_exact(n_blocks).enumerate() {
        let first = i * TOKENS;
        let n = TOKENS.min(n_tokens - first);
        for (start, panel) in starts.clone().zip(panels.chunks_exact(n_blocks)) {
            let end = (start + ROWS).min(rows.end);
            (gemm.multiply)(panel, tile, n, &mut product);
            for (token, results) in product.iter().enumerate().take(n) {
                // SAFETY: the caller's: nobody else has these rows.
                let out = unsafe { job.out(first + token, start..end) };
                out.copy_from_slice(&results[..end - start]);
            }
        }
    }
}
