//! Rows of values, and work on them that is shared among threads.

use std::ops::Range;

use metallic_kernels::pool::ThreadPool;

use crate::backend::Span;

/// Values below which an element-wise operation costs less than waking the other threads.
const MIN_SHARED_VALUES: usize = 16 << 10;

/// Where a span's rows of `width` values are.
pub(super) fn rows_of_span(span: &Span<'_>, width: usize) -> Range<usize> {
    span.first_row * width..(span.first_row + span.n_rows) * width
}

/// `work(first, part)` on contiguous parts of `x`, on all threads where it is long enough.
pub(super) fn split(pool: &ThreadPool, x: &mut [f32], work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    if x.len() < MIN_SHARED_VALUES { work(0, x) } else { pool.split_rows(x, 1, work) }
}

/// `work(i, row)` on every row of `x`, on all threads where there are enough.
pub(super) fn split_rows(
    pool: &ThreadPool,
    x: &mut [f32],
    width: usize,
    work: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    let rows = |first: usize, x: &mut [f32]| {
        x.chunks_exact_mut(width).enumerate().for_each(|(i, row)| work(first + i, row));
    };
    if x.len() < MIN_SHARED_VALUES { rows(0, x) } else { pool.split_rows(x, width, &rows) }
}
