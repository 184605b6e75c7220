//! Sharing out a product of matrices: which worker expands which rows, and in what order tiles are met.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{PanelBlock, ROWS, TOKENS, TileBlock};
use crate::activations::Q8_LEN;
use crate::isa::Isa;
use crate::matmul::{Forms, Input, MatmulJob, WorkerBuf};
use crate::pool::ThreadPool;

/// Expanded blocks that a worker keeps in its second-level cache, a quarter of which they fill.
const PANEL_BLOCKS: usize = (256 << 10) / size_of::<PanelBlock>();

/// Portions of a matrix for each worker at least, so that one that is slow holds up little.
const PORTIONS: usize = 4;

/// Blocks of tiles for all tokens, and of panels for each worker.
pub(crate) fn n_blocks(n_tokens: usize, n_blocks: usize) -> (usize, usize) {
    (n_tokens.div_ceil(TOKENS) * n_blocks, PANEL_BLOCKS.max(n_blocks))
}

/// What all jobs of a product of matrices have in common.
pub(crate) struct Call<'a> {
    pub(crate) pool: &'a ThreadPool,
    pub(crate) isa: Isa,
    pub(crate) n_tokens: usize,
    /// Blocks of a token's input.
    pub(crate) n_blocks: usize,
}

impl Call<'_> {
    /// Multiplies the matrices of those `jobs` that have a [`Gemm`](super::Gemm).
    pub(crate) fn multiply(
        &self,
        jobs: &[MatmulJob<'_>],
        input: &Input<'_>,
        tiles: &mut [TileBlock],
        workers: &[Mutex<WorkerBuf>],
    ) {
        let tiles = &mut tiles[..self.n_tokens.div_ceil(TOKENS) * self.n_blocks];
        self.make_tiles(input, tiles, workers);
        let next = AtomicUsize::new(0);
        self.pool.run(&|worker| {
            let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            while let Some((job, rows)) = self.portion(jobs, next.fetch_add(1, Ordering::Relaxed)) {
                // SAFETY: portions are disjoint, and the counter hands out each once.
                unsafe { self.multiply_rows(job, rows, tiles, &mut buf.panels) };
            }
        });
    }

    /// Makes the rows of 16 tokens at a time and sorts them into a tile.
    fn make_tiles(&self, input: &Input<'_>, tiles: &mut [TileBlock], workers: &[Mutex<WorkerBuf>]) {
        let forms = Forms { blocks: true, groups: false };
        self.pool.each_chunk_on(tiles, self.n_blocks, &|worker, i, tile| {
            let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            let first = i * TOKENS;
            for token in first..(first + TOKENS).min(self.n_tokens) {
                buf.input.fill(self.isa, input, token, 1, self.n_blocks * Q8_LEN, forms);
                let blocks = buf.input.blocks.iter().zip(&mut *tile);
                blocks.for_each(|(x, tile)| tile.set(token - first, x));
            }
        });
    }

    /// The `i`-th portion of all jobs: some rows of one.
    fn portion<'j, 'a>(
        &self,
        jobs: &'j [MatmulJob<'a>],
        mut i: usize,
    ) -> Option<(&'j MatmulJob<'a>, Range<usize>)> {
        for job in jobs.iter().filter(|job| job.gemm().is_some()) {
            let n_panels = job.n_rows().div_ceil(ROWS);
            let n = self.n_portions(n_panels);
            if i < n {
                let row = |i: usize| (i * n_panels / n * ROWS).min(job.n_rows());
                return Some((job, row(i)..row(i + 1)));
            }
            i -= n;
        }
        None
    }

    /// Into how many portions so many panels are divided: no larger than fits in the cache, enough for each
    /// worker, and as many for one as for another.
    fn n_portions(&self, n_panels: usize) -> usize {
        let n_threads = self.pool.n_threads();
        let at_once = (PANEL_BLOCKS / self.n_blocks).max(1);
        let n = n_panels.div_ceil(at_once).max(PORTIONS * n_threads);
        n.next_multiple_of(n_threads).min(n_panels)
    }

    /// Expands the panels of some rows, then lets each tile meet all of them.
    ///
    /// # Safety
    /// No other call at the same time may have any of `rows` of the same job.
    unsafe fn multiply_rows(
        &self,
        job: &MatmulJob<'_>,
        rows: Range<usize>,
        tiles: &[TileBlock],
        panels: &mut [PanelBlock],
    ) {
        let Some(gemm) = job.gemm() else { return };
        let starts = rows.clone().step_by(ROWS);
        for (start, panel) in starts.clone().zip(panels.chunks_exact_mut(self.n_blocks)) {
            let end = (start + ROWS).min(rows.end);
            (gemm.expand)(job.rows(start..end), job.row_bytes(), panel);
        }
        let mut product = [[0.0; ROWS]; TOKENS];
        for (i, tile) in tiles.chunks_exact(self.n_blocks).enumerate() {
            let first = i * TOKENS;
            let n = TOKENS.min(self.n_tokens - first);
            for (start, panel) in starts.clone().zip(panels.chunks_exact(self.n_blocks)) {
                let end = (start + ROWS).min(rows.end);
                (gemm.multiply)(panel, tile, n, &mut product);
                if end - start == ROWS {
                    // SAFETY: the caller's: nobody else has these rows.
                    unsafe { job.store_tile(first, start, &mut product[..n]) };
                    continue;
                }
                for (token, results) in product.iter_mut().enumerate().take(n) {
                    // SAFETY: as above.
                    unsafe { job.store(first + token, start..end, &mut results[..end - start]) };
                }
            }
        }
    }
}
