//! Sharing out a product of matrices: which worker expands which rows, and in what order tiles are met.

use std::iter::from_fn;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::layout::Layout;
use super::numbers::{Kind, Sums, cast_mut};
use super::{Floats, Functions, Group, Line, Multiply, Numbers, PANELS, Product, Quants, ROWS, TOKENS};
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
        {
            self.multiply_with::<super::numbers::Bf16>(jobs, input, tiles, workers);
            self.multiply_with::<super::numbers::Split>(jobs, input, tiles, workers);
        }
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
            let layout = N::layout(tokens.len(), self.n_blocks);
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
                let space = Space { panels: cast_mut(panels), sums: cast_mut(sums) };
                // Portions are disjoint, and the counter hands out each once.
                let portions = from_fn(|| {
                    let (job, rows) =
                        this.portion::<N>(jobs, &layout, next.fetch_add(1, Ordering::Relaxed))?;
                    let (n_blocks, tokens, tiles) = (this.n_blocks, tokens.clone(), &*tiles);
                    Some(Portion {
                        functions: functions(job)?,
                        job,
                        rows,
                        n_blocks,
                        tokens,
                        layout: &layout,
                        tiles,
                    })
                });
                N::work(this.isa, portions, space);
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

    /// Into how many portions so many groups of panels that are multiplied together are divided: no larger than the layout
    /// says, enough for each worker, and as many for one as for another.
    fn n_portions(&self, layout: &Layout, n_groups: usize) -> usize {
        let n_threads = self.pool.n_threads();
        let n = n_groups.div_ceil(layout.n_panels / PANELS).max(PORTIONS * n_threads);
        n.next_multiple_of(n_threads).min(n_groups)
    }
}

/// What a worker has for its portions.
pub(crate) struct Space<'a, N: Numbers> {
    pub(super) panels: &'a mut [N::Panel],
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no tiles"))]
    pub(super) sums: &'a mut [Sums],
}

/// Some rows of a job that meet some tokens. Nobody else has any of these rows.
pub(crate) struct Portion<'a, N: Numbers> {
    functions: &'a Functions<N>,
    pub(super) job: &'a MatmulJob<'a>,
    pub(super) rows: Range<usize>,
    pub(super) tokens: Range<usize>,
    /// Blocks of a row.
    pub(super) n_blocks: usize,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "there are no tiles"))]
    pub(super) layout: &'a Layout,
    pub(super) tiles: &'a [N::Tile],
}

impl<N: Numbers> Portion<'_, N> {
    /// Expands `n_blocks` blocks of some rows, from `first_block` on, to panels.
    pub(super) fn expand<'p>(
        &self,
        rows: Range<usize>,
        first_block: usize,
        n_blocks: usize,
        panels: &'p mut [N::Panel],
    ) -> &'p [N::Panel] {
        let first_byte = self.job.row_bytes() * first_block / self.n_blocks;
        let panels = &mut panels[..rows.len().div_ceil(ROWS) * n_blocks];
        for (start, panel) in rows.clone().step_by(ROWS).zip(panels.chunks_exact_mut(n_blocks)) {
            let end = (start + ROWS).min(rows.end);
            (self.functions.expand)(&self.job.rows(start..end)[first_byte..], self.job.row_bytes(), panel);
        }
        panels
    }
}

impl<N: Numbers<Multiply = Multiply<N>>> Portion<'_, N> {
    /// Expands all panels, then lets each tile meet all of them.
    pub(super) fn multiply(&self, space: &mut Space<'_, N>) {
        let Self { job, n_blocks, .. } = *self;
        let panels = self.expand(self.rows.clone(), 0, n_blocks, space.panels);
        let mut products = [[[0.0; ROWS]; TOKENS]; PANELS];
        for (first, tile) in self.tokens.clone().step_by(TOKENS).zip(self.tiles.chunks(n_blocks)) {
            let tokens = first..self.tokens.end.min(first + TOKENS);
            for (start, panels) in
                self.rows.clone().step_by(PANELS * ROWS).zip(panels.chunks(PANELS * n_blocks))
            {
                let starts = (start..self.rows.end.min(start + PANELS * ROWS)).step_by(ROWS);
                for start in starts.clone() {
                    tokens.clone().for_each(|token| job.prefetch(token, start));
                }
                let products = &mut products[..panels.len() / n_blocks];
                (self.functions.multiply)(Group { panels, tile, n_tokens: tokens.len() }, products);
                for (start, product) in starts.zip(products) {
                    self.store(start..self.rows.end.min(start + ROWS), tokens.clone(), product);
                }
            }
        }
    }

    /// Stores a product, which is lost.
    fn store(&self, rows: Range<usize>, tokens: Range<usize>, product: &mut Product) {
        if rows.len() == ROWS {
            // SAFETY: nobody else has these rows.
            return unsafe { self.job.store_tile(tokens.start, rows.start, &mut product[..tokens.len()]) };
        }
        for (token, results) in tokens.zip(product) {
            // SAFETY: as above.
            unsafe { self.job.store(token, rows.clone(), &mut results[..rows.len()]) };
        }
    }
}

/// The functions of a job's format, where it has some of this kind.
fn functions<'a, N: Numbers>(job: &'a MatmulJob<'_>) -> Option<&'a Functions<N>> {
    job.gemm().and_then(N::functions)
}
