//! Sharing out a product of matrices: which worker expands which rows, and in what order tiles are met.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::numbers::{Block, Kind, cast_mut};
use super::{Floats, Functions, Group, Line, Numbers, PANELS, Products, Quants, ROWS, TILES, TOKENS};
use crate::activations::Q8_LEN;
use crate::isa::Isa;
use crate::matmul::{Input, MatmulJob, WorkerBuf};
use crate::pool::ThreadPool;

/// Bytes of panels that a worker keeps in its second-level cache, a quarter of which they fill.
const PANEL_BYTES: usize = 256 << 10;

/// Portions of a matrix for each worker at least, so that one that is slow holds up little.
const PORTIONS: usize = 4;

/// Lines of tiles for all tokens, and of panels for each worker, for products of all kinds with rows of up to
/// `n_blocks` blocks. Panels of shorter rows may fill more of the cache's share than those of the longest.
pub(crate) fn n_lines(n_tokens: usize, n_blocks: usize) -> (usize, usize) {
    fn of<N: Numbers>(n_tokens: usize, n_blocks: usize) -> (usize, usize) {
        let tiles = n_tokens.min(N::MAX_TOKENS).div_ceil(TOKENS) * n_blocks * N::Tile::LINES;
        let fewest = PANELS * n_blocks * N::Panel::LINES;
        (tiles, fewest.max(PANEL_BYTES / size_of::<Line>()))
    }
    let (quants, floats) = (of::<Quants>(n_tokens, n_blocks), of::<Floats>(n_tokens, n_blocks));
    let most = (quants.0.max(floats.0), quants.1.max(floats.1));
    #[cfg(target_arch = "x86_64")]
    let most = {
        let tiles = of::<super::numbers::Bf16>(n_tokens, n_blocks);
        (most.0.max(tiles.0), most.1.max(tiles.1))
    };
    most
}

/// Panels with rows of so many blocks that a worker expands before tiles meet them: a multiple of those that are
/// multiplied together, even where that is more than the cache should hold.
fn panels_at_once<N: Numbers>(n_blocks: usize) -> usize {
    let fit = PANEL_BYTES / size_of::<N::Panel>() / n_blocks.max(1);
    (fit / PANELS * PANELS).max(PANELS)
}

/// What all jobs of a product of matrices have in common. Tiles are made when the first job needs them, and serve
/// those that follow.
pub(crate) struct Call<'a> {
    pub(crate) pool: &'a ThreadPool,
    pub(crate) isa: Isa,
    /// Those of the input's rows that are multiplied.
    pub(crate) tokens: Range<usize>,
    /// Blocks of a token's input.
    pub(crate) n_blocks: usize,
    /// What the tiles hold: the kind of their numbers, and their first token.
    pub(crate) made: Option<(Kind, usize)>,
}

impl Call<'_> {
    /// Multiplies the matrices of those `jobs` that have a [`Gemm`](super::Gemm).
    pub(crate) fn multiply(
        &mut self,
        jobs: &[MatmulJob<'_>],
        input: &Input<'_>,
        tiles: &mut [Line],
        workers: &[Mutex<WorkerBuf>],
    ) {
        self.multiply_with::<Quants>(jobs, input, tiles, workers);
        self.multiply_with::<Floats>(jobs, input, tiles, workers);
        #[cfg(target_arch = "x86_64")]
        self.multiply_with::<super::numbers::Bf16>(jobs, input, tiles, workers);
    }

    fn multiply_with<N: Numbers>(
        &mut self,
        jobs: &[MatmulJob<'_>],
        input: &Input<'_>,
        tiles: &mut [Line],
        workers: &[Mutex<WorkerBuf>],
    ) {
        if jobs.iter().all(|job| functions::<N>(job).is_none()) {
            return;
        }
        for first in self.tokens.clone().step_by(N::MAX_TOKENS) {
            let tokens = first..self.tokens.end.min(first.saturating_add(N::MAX_TOKENS));
            let tiles = &mut cast_mut(tiles)[..tokens.len().div_ceil(TOKENS) * self.n_blocks];
            if self.made != Some((N::KIND, first)) {
                self.make_tiles::<N>(input, tokens.clone(), tiles, workers);
                self.made = Some((N::KIND, first));
            }
            let next = AtomicUsize::new(0);
            let this = &*self;
            this.pool.run(&|worker| {
                let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
                let (unit, panels) = (N::unit(this.isa), cast_mut(&mut buf.panels));
                while let Some((job, rows)) = this.portion::<N>(jobs, next.fetch_add(1, Ordering::Relaxed)) {
                    // SAFETY: portions are disjoint, and the counter hands out each once.
                    unsafe { this.multiply_rows::<N>(&unit, job, rows, tokens.clone(), tiles, panels) };
                }
            });
        }
    }

    /// Makes the rows of 16 tokens at a time and sorts them into a tile.
    fn make_tiles<N: Numbers>(
        &self,
        input: &Input<'_>,
        tokens: Range<usize>,
        tiles: &mut [N::Tile],
        workers: &[Mutex<WorkerBuf>],
    ) {
        self.pool.each_chunk_on(tiles, self.n_blocks, &|worker, i, tile| {
            let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
            for (i, token) in tokens.clone().skip(i * TOKENS).take(TOKENS).enumerate() {
                buf.input.fill(self.isa, input, token..token + 1, self.n_blocks * Q8_LEN, N::FORMS);
                N::set(tile, i, &buf.input);
            }
        });
    }

    /// The `i`-th portion of all jobs: some rows of one.
    fn portion<'j, 'a, N: Numbers>(
        &self,
        jobs: &'j [MatmulJob<'a>],
        mut i: usize,
    ) -> Option<(&'j MatmulJob<'a>, Range<usize>)> {
        for job in jobs.iter().filter(|job| functions::<N>(job).is_some()) {
            let n_groups = job.n_rows().div_ceil(ROWS * PANELS);
            let n = self.n_portions::<N>(n_groups);
            if i < n {
                let row = |i: usize| (i * n_groups / n * ROWS * PANELS).min(job.n_rows());
                return Some((job, row(i)..row(i + 1)));
            }
            i -= n;
        }
        None
    }

    /// Into how many portions so many groups of panels that are multiplied together are divided: no larger than is
    /// expanded at once, enough for each worker, and as many for one as for another.
    fn n_portions<N: Numbers>(&self, n_groups: usize) -> usize {
        let n_threads = self.pool.n_threads();
        let n = n_groups.div_ceil(panels_at_once::<N>(self.n_blocks) / PANELS).max(PORTIONS * n_threads);
        n.next_multiple_of(n_threads).min(n_groups)
    }

    /// Expands the panels of some rows, then lets each tile meet all of them.
    ///
    /// # Safety
    /// No other call at the same time may have any of `rows` of the same job.
    unsafe fn multiply_rows<N: Numbers>(
        &self,
        unit: &N::Unit,
        job: &MatmulJob<'_>,
        rows: Range<usize>,
        tokens: Range<usize>,
        tiles: &[N::Tile],
        panels: &mut [N::Panel],
    ) {
        let Some(functions) = functions::<N>(job) else { return };
        let starts = rows.clone().step_by(ROWS);
        for (start, panel) in starts.clone().zip(panels.chunks_exact_mut(self.n_blocks)) {
            let end = (start + ROWS).min(rows.end);
            (functions.expand)(job.rows(start..end), job.row_bytes(), panel);
        }
        let mut sums = [[[[0.0; ROWS]; TOKENS]; PANELS]; TILES];
        let panels = &panels[..starts.len() * self.n_blocks];
        let groups = tokens.clone().step_by(TOKENS * N::TILES);
        for (first, tiles) in groups.zip(tiles.chunks(N::TILES * self.n_blocks)) {
            let tokens = first..tokens.end.min(first + TOKENS * N::TILES);
            for (i, panels) in panels.chunks(PANELS * self.n_blocks).enumerate() {
                let first_row = rows.start + i * PANELS * ROWS;
                let rows = first_row..rows.end.min(first_row + PANELS * ROWS);
                rows.clone().step_by(ROWS).for_each(|start| job.prefetch_tile(tokens.clone(), start));
                let group = Group { n_blocks: self.n_blocks, panels, tiles, n_tokens: tokens.len() };
                (functions.multiply)(unit, group, &mut sums[..tokens.len().div_ceil(TOKENS)]);
                // SAFETY: the caller's: nobody else has these rows.
                unsafe { store(job, rows, tokens.clone(), &mut sums) };
            }
        }
    }
}

/// Stores the products of up to [`PANELS`] panels and of some tiles, which are lost in `products`.
///
/// # Safety
/// No other call at the same time may have any of `rows` of the same job.
unsafe fn store(job: &MatmulJob<'_>, rows: Range<usize>, tokens: Range<usize>, products: &mut [Products]) {
    for (first, products) in tokens.clone().step_by(TOKENS).zip(products) {
        let n = TOKENS.min(tokens.end - first);
        for (start, product) in rows.clone().step_by(ROWS).zip(products) {
            let end = rows.end.min(start + ROWS);
            if end - start == ROWS {
                // SAFETY: the caller's.
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

/// The functions of a job's format, where it has some of this kind.
fn functions<'a, N: Numbers>(job: &'a MatmulJob<'_>) -> Option<&'a Functions<N>> {
    job.gemm().and_then(N::functions)
}
