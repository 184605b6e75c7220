//! Many queries in tiles of bfloat16 (AMX).
//!
//! Keys and values in pages are already what the unit takes on its right side: pairs of columns, and pairs of positions. A *block*
//! is up to 32 rows, the queries of all heads that share a key head, of one position or of several. It meets the positions of one
//! step after another, in an online softmax of each row:
//!
//! ```text
//! scores  = queries · keys                    two tiles of rows by two of positions
//! weights = e^(scores − largest so far)       rounded to bfloat16; 0 where a row's query does not see the position
//! sums    = sums · e^(largest before − now) + weights · values
//! ```
//!
//! So a row's sums have one order, whichever rows are in its block: its steps begin at multiples of 128 positions, and what it
//! does not see adds zeros.

use std::arch::x86_64::*;
use std::f32::consts::LOG2_E;
use std::ops::Range;
use std::sync::Mutex;

use super::pages::{GROUP, KvLayout, KvType, KvView, Step};
use super::softmax::Softmax;
use super::{AttentionParams, JOBS, POSITIONS, Queries, lock};
use crate::buffer::grow;
use crate::isa::Isa;
use crate::matmul::Columns;
use crate::pool::ThreadPool;
use crate::tiles::{self, Operand, ROW_BYTES, Sums, Tiles, load, store_rounded};

/// Rows of a block: two tiles.
const ROWS: usize = 2 * tiles::ROWS;

/// Rows of a job: its blocks share the keys and values that they read.
const JOB_ROWS: usize = 4 * ROWS;

/// A row of a tile.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line<T>(T);

type Floats = Line<[f32; ROW_BYTES / 4]>;
type Pairs = Line<[u16; ROW_BYTES / 2]>;

/// How keys and values are divided into tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    /// Pairs of columns that a tile of keys has, and tiles that a key is long.
    pairs: usize,
    n_keys: usize,
    /// Columns that a tile of values has, and tiles that a value is long.
    columns: usize,
    n_values: usize,
}

impl Division {
    /// That of layers whose keys and values tiles of at least half the size divide.
    pub(super) fn of(isa: Isa, layout: &KvLayout) -> Option<Self> {
        let [key, value] = layout.head_dims();
        let half =
            |n: usize| (tiles::ROWS / 2..=tiles::ROWS).rev().find(|&part| n > 0 && n.is_multiple_of(part));
        let is_bf16 = isa == Isa::Amx && layout.kv_type() == KvType::BF16 && key.is_multiple_of(2);
        let (pairs, columns) = (half(key / 2).filter(|_| is_bf16)?, half(value)?);
        Some(Division { pairs, n_keys: key / 2 / pairs, columns, n_values: value / columns })
    }

    /// Lines of a row of sums.
    fn sum_lines(&self) -> usize {
        (self.n_values * self.columns).div_ceil(ROW_BYTES / 4)
    }
}

/// A head of a query.
#[derive(Clone, Copy, Debug)]
struct Row {
    query: usize,
    head: usize,
    /// The positions that it sees.
    visible: [usize; 2],
    /// The largest score of the steps so far.
    largest: f32,
    /// The sum of their weights, in parts.
    sum: [f32; 16],
}

impl Row {
    const NONE: Self =
        Row { query: 0, head: 0, visible: [0; 2], largest: Softmax::NONE.largest, sum: [0.0; 16] };

    /// What it sees of a step, counted from the step's first position.
    fn visible(&self, step: &Step<'_>) -> Range<usize> {
        let [start, end] = self.visible.map(|at| at.saturating_sub(step.number * POSITIONS).min(POSITIONS));
        start..end
    }
}

/// What a thread needs for a job.
#[derive(Debug, Default)]
pub(super) struct TileSpace {
    /// Queries, tile by tile.
    queries: Vec<Pairs>,
    /// Sums of the values, row by row.
    sums: Vec<Floats>,
    /// Of each row of a block, the scores of a step.
    scores: Vec<Line<[f32; POSITIONS]>>,
    /// What they become.
    weights: Vec<Line<[u16; POSITIONS]>>,
    rows: Vec<Row>,
    /// The last values of a sequence, with zeros after them.
    last_values: Vec<[u16; 2]>,
}

/// Lengths of the buffers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TileSizes {
    queries: usize,
    sums: usize,
    rows: usize,
    block_rows: usize,
    last_values: usize,
}

impl TileSizes {
    pub(super) fn new(isa: Isa, n_head: usize, layout: &KvLayout) -> Self {
        let Some(division) = Division::of(isa, layout) else { return Self::default() };
        let rows = max_rows(n_head / layout.n_head_kv());
        Self {
            queries: rows * division.n_keys,
            sums: rows * division.sum_lines(),
            rows,
            block_rows: ROWS,
            last_values: GROUP / 2 * layout.head_dims()[1],
        }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self {
            queries: self.queries.max(other.queries),
            sums: self.sums.max(other.sums),
            rows: self.rows.max(other.rows),
            block_rows: self.block_rows.max(other.block_rows),
            last_values: self.last_values.max(other.last_values),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let of_row = size_of::<[f32; POSITIONS]>() + size_of::<[u16; POSITIONS]>();
        (self.queries + self.sums) * ROW_BYTES
            + self.rows * size_of::<Row>()
            + self.block_rows * of_row
            + self.last_values * size_of::<[u16; 2]>()
    }
}

impl TileSpace {
    pub(super) fn reserve(&mut self, sizes: &TileSizes) {
        grow(&mut self.queries, sizes.queries, Line([0; ROW_BYTES / 2]));
        grow(&mut self.sums, sizes.sums, Line([0.0; ROW_BYTES / 4]));
        grow(&mut self.rows, sizes.rows, Row::NONE);
        grow(&mut self.scores, sizes.block_rows, Line([0.0; POSITIONS]));
        grow(&mut self.weights, sizes.block_rows, Line([0; POSITIONS]));
        grow(&mut self.last_values, sizes.last_values, [0; 2]);
    }
}

/// Rows of a job at most, where so many heads share a key head: whole blocks.
fn max_rows(shared: usize) -> usize {
    JOB_ROWS.max(shared.next_multiple_of(ROWS))
}

/// What all jobs of a call have in common.
pub(super) struct TileCall<'a> {
    pub(super) params: &'a AttentionParams<'a>,
    pub(super) isa: Isa,
    pub(super) kv: &'a KvView<'a>,
    pub(super) queries: Queries<'a>,
    pub(super) division: Division,
}

/// Some queries with the heads that share a key head.
struct Job<'a, 'b> {
    call: &'a TileCall<'a>,
    head_kv: usize,
    queries: Range<usize>,
    space: &'b mut TileSpace,
}

impl TileCall<'_> {
    pub(super) fn run(&self, pool: &ThreadPool, spaces: &[Mutex<super::Space>], out: &mut [f32]) {
        let n_head_kv = self.kv.layout.n_head_kv();
        let (shared, n_queries) = (self.shared(), self.n_queries());
        // As many as fill a job's blocks, but no fewer jobs than keep all threads busy, unless blocks would not be full.
        let n_parts = (JOBS * pool.n_threads()).div_ceil(n_head_kv);
        let most = max_rows(shared) / shared;
        let n = n_queries.div_ceil(n_parts).clamp(ROWS.div_ceil(shared).min(most), most);
        let n_parts = n_queries.div_ceil(n);
        let [_, dim] = self.kv.layout.head_dims();
        let out = Columns::new(out, self.params.n_head * dim, 0);
        let next = Mutex::new(0..n_parts * n_head_kv);
        pool.run(&|worker| {
            let mut space = lock(&spaces[worker]);
            let mut unit = Tiles::new(self.isa);
            loop {
                let Some(i) = lock(&next).next() else { break };
                // The last queries see the most: they begin, and what ends last is a small job.
                let (part, head_kv) = (n_parts - 1 - i / n_head_kv, i % n_head_kv);
                let queries = part * n..n_queries.min((part + 1) * n);
                let job = Job { call: self, head_kv, queries, space: &mut space.in_tiles };
                // SAFETY: an `Isa::Amx` proves that this CPU has the instructions; jobs differ in their queries or heads.
                unsafe { job.run(&mut unit, &out) };
            }
        });
    }

    fn shared(&self) -> usize {
        self.params.n_head / self.kv.layout.n_head_kv()
    }

    fn n_queries(&self) -> usize {
        self.queries.rows.len() / (self.params.n_head * self.kv.layout.head_dims()[0])
    }
}

impl Job<'_, '_> {
    /// # Safety
    /// This CPU has what this is compiled for, and no other job with the same queries and heads writes to `out`.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn run(mut self, unit: &mut Tiles, out: &Columns<'_>) {
        let TileCall { params, kv, queries, division, .. } = *self.call;
        let (shared, n_lines) = (self.call.shared(), division.sum_lines());
        let n_rows = self.queries.len() * shared;
        for (i, row) in self.space.rows[..n_rows].iter_mut().enumerate() {
            let (query, head) = (self.queries.start + i / shared, self.head_kv * shared + i % shared);
            let Range { start, end } = params.visible(queries.first + query);
            *row = Row { query, head, visible: [start, end], ..Row::NONE };
        }
        self.space.sums[..n_rows * n_lines].fill(Line([0.0; ROW_BYTES / 4]));
        self.pack_queries(n_rows);
        let [first, last] = [0, n_rows - 1].map(|row| self.space.rows[row].visible);
        let end = last[1].div_ceil(POSITIONS);
        for number in first[0] / POSITIONS..end {
            let step = kv.step(number, self.head_kv);
            let next = kv.step((number + 1).min(end - 1), self.head_kv);
            for start in (0..n_rows).step_by(ROWS) {
                self.attend(unit, start..n_rows.min(start + ROWS), n_rows, &step, &next);
            }
        }
        let [_, dim] = kv.layout.head_dims();
        for (row, sums) in self.space.rows[..n_rows].iter_mut().zip(self.space.sums.chunks_exact(n_lines)) {
            let mut softmax = Softmax { largest: row.largest, sum: _mm512_reduce_add_ps(load(&row.sum)) };
            let factor = params.finish(row.head, &mut softmax);
            // SAFETY: the caller's: no other job has this query with this head.
            let out = unsafe { out.row(row.query, row.head * dim..(row.head + 1) * dim) };
            for (out, sums) in out.chunks_mut(ROW_BYTES / 4).zip(sums) {
                out.iter_mut().zip(sums.0).for_each(|(out, sum)| *out = sum * factor);
            }
        }
    }

    /// Rounds the scaled queries to tiles: of 16 rows, one tile of their pairs after another.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pack_queries(&mut self, n_rows: usize) {
        let TileCall { params, kv, queries, division: Division { pairs, n_keys, .. }, .. } = *self.call;
        let [dim, _] = kv.layout.head_dims();
        for row in 0..n_rows {
            let Row { query, head, .. } = self.space.rows[row];
            let q = &queries.rows[(query * params.n_head + head) * dim..][..dim];
            let first = row / tiles::ROWS * n_keys * tiles::ROWS + row % tiles::ROWS;
            for (i, q) in q.chunks_exact(2 * pairs).enumerate() {
                let mut scaled = [0.0; ROW_BYTES / 2];
                scaled.iter_mut().zip(q).for_each(|(scaled, x)| *scaled = x * params.scale);
                let [low, high] = scaled.as_chunks::<16>().0 else { continue };
                store_rounded(load(low), load(high), &mut self.space.queries[first + i * tiles::ROWS].0);
            }
        }
    }

    /// Lets some rows, a block, meet the positions of a step.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    fn attend(
        &mut self,
        unit: &mut Tiles,
        rows: Range<usize>,
        n_rows: usize,
        step: &Step<'_>,
        next: &Step<'_>,
    ) {
        let TileCall { params, isa, queries, .. } = *self.call;
        let [first, last] = [rows.start, rows.end - 1].map(|row| self.space.rows[row].visible(step));
        let seen = first.start..last.end;
        if seen.is_empty() {
            return;
        }
        let groups = seen.start / GROUP..seen.end.div_ceil(GROUP);
        self.score(unit, rows.clone(), step, groups.clone());
        // What each row's sums are multiplied by: first the exponents, then the powers.
        let mut factors = [0.0; ROWS];
        for (in_block, row) in rows.clone().enumerate() {
            let TileSpace { rows, scores, .. } = &mut *self.space;
            let (row, scores) = (&mut rows[row], &mut scores[in_block].0);
            let visible = row.visible(step);
            let (position, first) = (queries.first + row.query, step.number * POSITIONS + visible.start);
            params.adjust(isa, row.head, position, first, &mut scores[visible.clone()]);
            let largest = largest(scores, visible);
            if largest > row.largest {
                factors[in_block] = row.largest - largest;
                row.largest = largest;
            }
        }
        exp(&mut factors);
        for (in_block, row) in rows.clone().enumerate() {
            for bytes in [next.keys, next.values] {
                prefetch(&bytes[bytes.len() * row / n_rows..bytes.len() * (row + 1) / n_rows]);
            }
            let (factor, n_lines) = (factors[in_block], self.call.division.sum_lines());
            let TileSpace { rows, scores, weights, sums, .. } = &mut *self.space;
            let visible = rows[row].visible(step);
            let Row { largest, sum, .. } = &mut rows[row];
            weigh(&scores[in_block].0, visible, *largest, factor, sum, &mut weights[in_block].0);
            if factor != 1.0 {
                let sums = sums[row * n_lines..][..n_lines].iter_mut();
                sums.flat_map(|line| &mut line.0).for_each(|sum| *sum *= factor);
            }
        }
        self.add_values(unit, rows, step, groups);
    }

    /// The products of queries and keys.
    fn score(&mut self, unit: &mut Tiles, rows: Range<usize>, step: &Step<'_>, groups: Range<usize>) {
        let Division { pairs, n_keys, .. } = self.call.division;
        unit.shape(pairs, tiles::ROWS);
        let group_bytes = n_keys * pairs * GROUP * size_of::<[u16; 2]>();
        assert!(groups.end * group_bytes <= step.keys.len() && groups.end * GROUP <= POSITIONS);
        let (first, tile_bytes) = (rows.start * n_keys, tiles::ROWS * ROW_BYTES);
        let queries = &self.space.queries[first..][..rows.len().next_multiple_of(tiles::ROWS) * n_keys];
        let left = Operand {
            start: queries.as_ptr().cast(),
            stride: ROW_BYTES,
            step: tile_bytes,
            second: n_keys * tile_bytes,
        };
        let row_bytes = size_of::<Line<[f32; POSITIONS]>>();
        let scores = &mut self.space.scores[..ROWS];
        for group in groups {
            let right = Operand {
                start: step.keys[group * group_bytes..].as_ptr(),
                stride: 2 * ROW_BYTES,
                step: pairs * 2 * ROW_BYTES,
                second: ROW_BYTES,
            };
            let to = Sums {
                start: scores.as_mut_ptr().cast::<f32>().wrapping_add(group * GROUP),
                stride: row_bytes,
                right: ROW_BYTES,
                below: tiles::ROWS * row_bytes,
            };
            // SAFETY: there are queries of one block of 16 rows or two, keys of 32 positions, as asserted, and scores of 32 rows and
            // of 32 positions from there on.
            unsafe {
                if rows.len() > tiles::ROWS {
                    unit.product::<true, false>(n_keys, left, right, None, to, |_| {});
                } else {
                    unit.product::<false, false>(n_keys, left, right, None, to, |_| {});
                }
            }
        }
    }

    /// Adds the values of some groups of positions, weighted, to the sums.
    fn add_values(&mut self, unit: &mut Tiles, rows: Range<usize>, step: &Step<'_>, groups: Range<usize>) {
        let TileCall { queries, .. } = *self.call;
        let [_, dim] = self.call.kv.layout.head_dims();
        let pair_bytes = dim * size_of::<[u16; 2]>();
        let group_bytes = GROUP / 2 * pair_bytes;
        assert!(groups.end * group_bytes <= step.values.len());
        // What comes after the last position need not be numbers.
        let n_stored = (queries.first + self.call.n_queries()).saturating_sub(step.number * POSITIONS);
        let n_whole = (n_stored / GROUP).clamp(groups.start, groups.end);
        let values = step.values[groups.start * group_bytes..].as_ptr();
        if n_whole > groups.start {
            // SAFETY: the values of so many groups, as asserted.
            unsafe { self.add_groups(unit, rows.clone(), groups.start..n_whole, values) };
        }
        if n_whole < groups.end {
            let stored = (n_stored - n_whole * GROUP).div_ceil(2) * dim;
            let last =
                step.values[n_whole * group_bytes..][..group_bytes].as_chunks::<2>().0.as_chunks::<2>().0;
            let mut padded = std::mem::take(&mut self.space.last_values);
            for (i, (to, from)) in padded.iter_mut().zip(last).enumerate() {
                *to = if i < stored { from.map(u16::from_ne_bytes) } else { [0; 2] };
            }
            // SAFETY: the values of one group.
            unsafe { self.add_groups(unit, rows, n_whole..n_whole + 1, padded.as_ptr().cast()) };
            self.space.last_values = padded;
        }
    }

    /// The same from where `values` of those groups lie.
    ///
    /// # Safety
    /// There are as many.
    unsafe fn add_groups(
        &mut self,
        unit: &mut Tiles,
        rows: Range<usize>,
        groups: Range<usize>,
        values: *const u8,
    ) {
        let Division { columns, n_values, .. } = self.call.division;
        unit.shape(tiles::ROWS, columns);
        let [_, dim] = self.call.kv.layout.head_dims();
        let (pair_bytes, row_bytes) = (dim * size_of::<[u16; 2]>(), size_of::<Line<[u16; POSITIONS]>>());
        let weights = &self.space.weights[..ROWS];
        let left = Operand {
            start: weights[0].0[groups.start * GROUP..].as_ptr().cast(),
            stride: row_bytes,
            step: GROUP * size_of::<u16>(),
            second: tiles::ROWS * row_bytes,
        };
        let n_lines = self.call.division.sum_lines();
        let n_rows = rows.len().next_multiple_of(tiles::ROWS);
        let sums = &mut self.space.sums[rows.start * n_lines..][..n_rows * n_lines];
        let tile_bytes = columns * size_of::<[u16; 2]>();
        for i in (0..n_values).step_by(2) {
            // The last of an odd number is its own second.
            let second = if i + 1 < n_values { tile_bytes } else { 0 };
            let right = Operand {
                start: values.wrapping_add(i * tile_bytes),
                stride: pair_bytes,
                step: GROUP / 2 * pair_bytes,
                second,
            };
            let to = Sums {
                start: sums.as_mut_ptr().cast::<f32>().wrapping_add(i * columns),
                stride: n_lines * ROW_BYTES,
                right: second,
                below: tiles::ROWS * n_lines * ROW_BYTES,
            };
            // SAFETY: there are weights of 32 rows and of those groups, values, as promised, and sums of 16 rows or of 32.
            unsafe {
                if rows.len() > tiles::ROWS {
                    unit.product::<true, false>(groups.len(), left, right, Some(to), to, |_| {});
                } else {
                    unit.product::<false, false>(groups.len(), left, right, Some(to), to, |_| {});
                }
            }
        }
    }
}

/// Those of the 16 scores from 16 `i` on whose positions are seen.
#[inline]
fn mask(visible: &Range<usize>, i: usize) -> __mmask16 {
    let below = |n: usize| __mmask16::MAX.checked_shl(n.saturating_sub(16 * i) as u32).unwrap_or(0);
    below(visible.start) & !below(visible.end)
}

/// The largest of the visible scores.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn largest(scores: &[f32; POSITIONS], visible: Range<usize>) -> f32 {
    let whole = visible == (0..POSITIONS);
    let mut largest = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
    for (i, scores) in scores.as_chunks::<16>().0.iter().enumerate() {
        let seen = if whole { __mmask16::MAX } else { mask(&visible, i) };
        largest[i % 2] = _mm512_mask_max_ps(largest[i % 2], seen, load(scores), largest[i % 2]);
    }
    _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]))
}

/// Writes the weights of the visible positions of a row, relative to the largest score so far, and zeros for the others. Adds them
/// to the sum so far, multiplied by `factor`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn weigh(
    scores: &[f32; POSITIONS],
    visible: Range<usize>,
    largest: f32,
    factor: f32,
    sum: &mut [f32; 16],
    weights: &mut [u16; POSITIONS],
) {
    let whole = visible == (0..POSITIONS);
    let scores = scores.as_chunks::<16>().0;
    let (log2_e, largest) = (_mm512_set1_ps(LOG2_E), _mm512_set1_ps(largest * LOG2_E));
    let mut sums = _mm512_mul_ps(load(sum), _mm512_set1_ps(factor));
    for (i, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let weight = |i: usize| {
            let seen = if whole { __mmask16::MAX } else { mask(&visible, i) };
            _mm512_maskz_mov_ps(seen, exp2(_mm512_fmsub_ps(load(&scores[i]), log2_e, largest)))
        };
        let (low, high) = (weight(2 * i), weight(2 * i + 1));
        sums = _mm512_add_ps(sums, _mm512_add_ps(low, high));
        store_rounded(low, high, weights);
    }
    // SAFETY: writes the 16 floats of the reference.
    unsafe { _mm512_storeu_ps(sum.as_mut_ptr(), sums) };
}

/// e^x for each x ≤ 0.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp(x: &mut [f32; ROWS]) {
    for x in x.as_chunks_mut::<16>().0 {
        let power = exp2(_mm512_mul_ps(load(x), _mm512_set1_ps(LOG2_E)));
        // SAFETY: writes the 16 floats of the reference.
        unsafe { _mm512_storeu_ps(x.as_mut_ptr(), power) };
    }
}

/// 2^x for x ≤ 0, to within 3e-6 of itself: more than is left of a weight in bfloat16. 1 for 0.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn exp2(x: __m512) -> __m512 {
    // What x is above the integer below it.
    let r = _mm512_reduce_ps::<9>(x);
    // 2^r for r below 1 as 1 + r · q(r), where q makes the largest relative error least.
    let mut q = _mm512_set1_ps(1.342_651_9e-2);
    for coefficient in [5.224_274e-2, 0.241_280_08, 0.693_044_84, 1.0] {
        q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(coefficient));
    }
    // By two to the power of that integer.
    _mm512_scalef_ps(q, x)
}

/// Has bytes brought to the second-level cache.
#[inline]
fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(ROW_BYTES) {
        // SAFETY: a prefetch of any address is harmless, and every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}
