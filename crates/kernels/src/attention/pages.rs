//! How keys and values lie in pages, for writing and for reading.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Positions whose keys are transposed together: a cache line for each of their columns.
const GROUP: usize = 32;

/// Floats rounded at a time.
const ROUNDED: usize = 64;

/// The pages of one kind (keys or values) of one layer, for writing.
#[derive(Debug)]
pub struct KvPages<'a> {
    /// All pages.
    pub slab: &'a mut [f16],
    /// The sequence's pages: position `p` is in page `table[p / page_len]`.
    pub table: &'a [u32],
    /// Positions in a page.
    pub page_len: usize,
}

impl KvPages<'_> {
    /// Stores keys, rounded to the nearest f16: `rows` are `n_head_kv` heads of `head_dim` values for each
    /// position from `first` on.
    ///
    /// # Panics
    /// If the table or the slab ends before the last position, or `rows` are not whole rows.
    pub fn store_keys(&mut self, first: usize, rows: &[f32], n_head_kv: usize, head_dim: usize) {
        let page_len = self.page_len;
        self.store(first, rows, n_head_kv, head_dim, |head, in_page, column, x| {
            let group = group(in_page, page_len);
            let keys = &mut head[group.start * head_dim..group.end * head_dim];
            for (row, &x) in keys.chunks_exact_mut(group.len()).skip(column).zip(x) {
                row[in_page - group.start] = x;
            }
        });
    }

    /// Stores values, given as keys are.
    ///
    /// # Panics
    /// As [`store_keys`](Self::store_keys) does.
    pub fn store_values(&mut self, first: usize, rows: &[f32], n_head_kv: usize, head_dim: usize) {
        self.store(first, rows, n_head_kv, head_dim, |head, in_page, column, x| {
            head[in_page * head_dim + column..][..x.len()].copy_from_slice(x);
        });
    }

    /// Calls `put(head of a page, position in it, column, rounded values)` for pieces of every row.
    fn store(
        &mut self,
        first: usize,
        rows: &[f32],
        n_head_kv: usize,
        head_dim: usize,
        put: impl Fn(&mut [f16], usize, usize, &[f16]),
    ) {
        assert!(rows.len().is_multiple_of(n_head_kv * head_dim), "whole rows of keys or values");
        let head_len = self.page_len * head_dim;
        let mut rounded = [f16::ZERO; ROUNDED];
        for (row, position) in rows.chunks_exact(n_head_kv * head_dim).zip(first..) {
            let page = self.table[position / self.page_len] as usize;
            let heads = &mut self.slab[page * n_head_kv * head_len..][..n_head_kv * head_len];
            for (x, head) in row.chunks_exact(head_dim).zip(heads.chunks_exact_mut(head_len)) {
                for (i, x) in x.chunks(ROUNDED).enumerate() {
                    let rounded = &mut rounded[..x.len()];
                    rounded.convert_from_f32_slice(x);
                    put(head, position % self.page_len, i * ROUNDED, rounded);
                }
            }
        }
    }
}

/// What a sequence attends to in one layer, for reading.
#[derive(Clone, Copy, Debug)]
pub struct KvView<'a> {
    /// Key pages, heads of `head_dim_k`.
    pub keys: &'a [f16],
    /// Value pages, heads of `head_dim_v`.
    pub values: &'a [f16],
    /// The sequence's pages: position `p` is in page `table[p / page_len]`.
    pub table: &'a [u32],
    /// Positions in a page.
    pub page_len: usize,
}

impl<'a> KvView<'a> {
    /// The keys or values of one head in the page of `position`, from `slab`.
    pub(super) fn head(
        &self,
        slab: &'a [f16],
        position: usize,
        head: usize,
        n_head_kv: usize,
        head_dim: usize,
    ) -> &'a [f16] {
        let page = self.table[position / self.page_len] as usize;
        let head_len = self.page_len * head_dim;
        &slab[(page * n_head_kv + head) * head_len..][..head_len]
    }
}

/// The positions of a page whose keys are transposed together with those of `in_page`.
pub(super) fn group(in_page: usize, page_len: usize) -> Range<usize> {
    let start = in_page / GROUP * GROUP;
    start..(start + GROUP).min(page_len)
}
