//! Sharing out a product of matrices: which worker expands which rows, and in what order tiles are met.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::layout::Layout;
use super::numbers::{Kind, cast_mut};
use super::{Floats, Functions, Group, Line, Numbers, PANELS, Products, Quants, ROWS, TILES, TOKENS};
use crate::activations::Q8_LEN;
use crate::isa::Isa;
use crate::matmul::{Input, MatmulJob, WorkerBuf};
use crate::pool::ThreadPool;

/// Portions of a matrix for each worker at least, so that one that is slow holds up little.
const PORTIONS: usize = 4;

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
            let layout = Layout::new::<N>(tokens.len(), self.n_blocks);
            let tiles = &mut cast_mut(tiles)[..layout.n_tiles * layout.stride];
            if self.made != Some((N::KIND, first)) {
                self.make_tiles::<N>(input, tokens.clone(), layout.stride, tiles, workers);
                self.made = Some((N::KIND, first));
            }
            let next = AtomicUsize::new(0);
            let this = &*self;
            this.pool.run(&|worker| {
                let mut buf = workers[worker].lock().unwrap_or_else(PoisonError::into_inner);
                let WorkerBuf { panels, sums, .. } = &mut *buf;
                let unit = N::unit(this.isa);
                let mut worker = Worker::<N> { unit, panels: cast_mut(panels), sums: cast_mut(sums) };
                let portion = |i| this.portion::<N>(jobs, &layout, i);
                while let Some((job, rows)) = portion(next.fetch_add(1, Ordering::Relaxed)) {
                    // SAFETY: portions are disjoint, and the counter hands out each once.
                    unsafe { this.multiply_rows(&mut worker, job, rows, tokens.clone(), &layout, tiles) };
                }
            });
        }
    }

    /// Makes the rows of 16 tokens at a time and sorts them into a tile.
    fn make_tiles<N: Numbers>(
        &self,
        input: &Input<'_>,
        tokens: Range<usize>,
        stride: usize,
        tiles: &mut [N::Tile],
        workers: &[Mutex<WorkerBuf>],
    ) {
        self.pool.each_chunk_on(tiles, stride, &|worker, i, tile| {
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
        layout: &Layout,
        mut i: usize,
    ) -> Option<(&'j MatmulJob<'a>, Range<usize>)> {
        for job in jobs.iter().filter(|job| functions::<N>(job).is_some()) {
            let n_groups = job.n_rows().div_ceil(ROWS * PANELS);
            let n = self.n_portions(layout, n_groups);
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
    fn n_portions(&self, layout: &Layout, n_groups: usize) -> usize {
        let n_threads = self.pool.n_threads();
        let n = n_groups.div_ceil(layout.n_panels / PANELS).max(PORTIONS * n_threads);
        n.next_multiple_of(n_threads).min(n_groups)
    }

    /// Expands the panels of some rows, then lets each tile meet all of them; and so step by step.
    ///
    /// # Safety
    /// No other call at the same time may have any of `rows` of the same job.
    unsafe fn multiply_rows<N: Numbers>(
        &self,
        worker: &mut Worker<'_, N>,
        job: &MatmulJob<'_>,
        rows: Range<usize>,
        tokens: Range<usize>,
        layout: &Layout,
        tiles: &[N::Tile],
    ) {
        let Some(functions) = functions::<N>(job) else { return };
        let n_groups = rows.len().div_ceil(ROWS * PANELS);
        let mut products = [[[[0.0; ROWS]; TOKENS]; PANELS]; TILES];
        for first_block in (0..self.n_blocks).step_by(layout.step.get()) {
            let n_blocks = layout.step.get().min(self.n_blocks - first_block);
            let is_last = first_block + n_blocks == self.n_blocks;
            let first_byte = job.row_bytes() * first_block / self.n_blocks;
            let panels = &mut worker.panels[..rows.len().div_ceil(ROWS) * n_blocks];
            for (start, panel) in rows.clone().step_by(ROWS).zip(panels.chunks_exact_mut(n_blocks)) {
                let end = (start + ROWS).min(rows.end);
                (functions.expand)(&job.rows(start..end)[first_byte..], job.row_bytes(), panel);
            }
            for (i, first) in tokens.clone().step_by(TOKENS * N::TILES).enumerate() {
                let tokens = first..tokens.end.min(first + TOKENS * N::TILES);
                let n_tiles = tokens.len().div_ceil(TOKENS);
                let first_tile = i * N::TILES * layout.stride + first_block;
                let tiles = &tiles[first_tile..][..(n_tiles - 1) * layout.stride + n_blocks];
                for (j, panels) in panels.chunks(PANELS * n_blocks).enumerate() {
                    let sums = if n_blocks == self.n_blocks {
                        &mut products
                    } else {
                        &mut worker.sums[(i * n_groups + j) * N::TILES..]
                    };
                    let first_row = rows.start + j * PANELS * ROWS;
                    let rows = first_row..rows.end.min(first_row + PANELS * ROWS);
                    if is_last {
                        let starts = rows.clone().step_by(ROWS);
                        starts.for_each(|start| job.prefetch_tile(tokens.clone(), start));
                    }
                    let (stride, n_tokens, adds) = (layout.stride, tokens.len(), first_block > 0);
                    let group = Group { n_blocks, panels, tiles, stride, n_tokens, adds };
                    (functions.multiply)(&worker.unit, group, &mut sums[..n_tiles]);
                    if is_last {
                        // SAFETY: the caller's: nobody else has these rows.
                        unsafe { store(job, rows, tokens.clone(), sums) };
                    }
                }
            }
        }
    }
}

/// What a worker has for its portions.
struct Worker<'a, N: Numbers> {
    unit: N::Unit,
    panels: &'a mut [N::Panel],
    sums: &'a mut [Products],
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
