//! [`blocks`](super::blocks) in AVX2 and AVX-512 with VNNI.

use std::arch::x86_64::*;

use super::ROWS;
use super::blocks::{Blocks, LEN, Q4, Q8, QUERY_COLUMNS, dword_at, format_of_blocks, pack_query};
use super::pages::GROUP;
use super::product::{
    Format, Products, Registers, Scores, Sums, Values, Weights, for_each_row, prefetch, weighted, with_rows,
};
use super::x86::{self, Avx2, Avx512};
use crate::isa::Isa;

/// How the numbers of a panel come to registers, those of `LEN / 8` columns to a lane.
pub(super) trait Quads: Blocks + Format<Avx2> + Format<Avx512> {
    /// Columns `4 · i` to `4 · i + 3` of the 8 positions from `first` on.
    ///
    /// # Safety
    /// There is a panel at `panel`, and the CPU has AVX2.
    unsafe fn quad_256(panel: *const u8, i: usize, first: usize) -> __m256i;

    /// The same of 16 positions, and [`Blocks::OFFSET`] more, which makes them unsigned.
    ///
    /// # Safety
    /// There is a panel at `panel`, and the CPU has AVX-512 with BW.
    unsafe fn quad_512(panel: *const u8, i: usize, first: usize) -> __m512i;
}

/// Registers whose lanes are sums of integers.
trait Integers: Registers {
    type I: Copy;

    /// Sums to begin with: 0, or the column of a query that is added to sums of unsigned products.
    fn begin(self, offset: f32) -> Self::I;
    /// Adds the products of a quad of each position with one of the query.
    ///
    /// # Safety
    /// There is a panel at `panel`.
    unsafe fn quad<B: Quads>(self, panel: *const u8, i: usize, first: usize) -> Self::I;
    /// Adds the products of a quad of each position with one of the query.
    fn dot(self, sums: Self::I, keys: Self::I, query: f32) -> Self::I;
    /// As floats.
    fn to_float(self, x: Self::I) -> Self::V;
    /// Reads a register of numbers in half precision.
    ///
    /// # Safety
    /// There are as many at `from`, at any alignment.
    unsafe fn halves(self, from: *const u8) -> Self::V;
}

#[inline(always)]
fn scores<R: Integers, B: Quads>(r: R, scores: Scores<'_>, weights: &mut Weights) {
    let Scores { queries, n_rows, groups, first, ahead } = scores;
    let queries = queries.as_chunks::<QUERY_COLUMNS>().0;
    for (g, group) in groups.chunks_exact(queries.len() * GROUP * B::BYTES).enumerate() {
        for row in (0..n_rows).step_by(R::ROWS) {
            let n = R::ROWS.min(n_rows - row);
            let position = (first + g) * GROUP;
            with_rows!(R, n, scores_of_group::<R, B>(r, queries, row, n, group, position, ahead, weights));
        }
    }
}

/// Scores of `n` rows from `first` on, `n <= N`, for one group.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two matrices, and which part of one")]
fn scores_of_group<R: Integers, B: Quads, const N: usize>(
    r: R,
    queries: &[[[f32; ROWS]; QUERY_COLUMNS]],
    first: usize,
    n: usize,
    group: &[u8],
    position: usize,
    ahead: usize,
    weights: &mut Weights,
) {
    assert!(first + N <= ROWS);
    let rows = &mut weights[first..first + n];
    for at in (0..GROUP).step_by(R::LANES) {
        let mut sums = [r.splat(0.0); ROWS];
        for (columns, panel) in queries.iter().zip(group.chunks_exact(GROUP * B::BYTES)) {
            let panel = panel.as_ptr();
            if N < R::ROWS {
                // Each register of positions has its share of the panel fetched.
                prefetch(r, panel.wrapping_add(ahead.wrapping_add(at * B::BYTES)), R::LANES * B::BYTES);
            }
            add_panel::<R, B, N>(r, columns, first, panel, at, &mut sums);
        }
        for (sum, row) in sums.into_iter().zip(&mut *rows) {
            let row = &mut row[position + at..][..R::LANES];
            // SAFETY: the slice has room for a register.
            unsafe { r.store(sum, row.as_mut_ptr(), r.first_lanes(R::LANES)) };
        }
    }
}

/// Adds what 32 columns make of the scores of a register of positions.
#[inline(always)]
fn add_panel<R: Integers, B: Quads, const N: usize>(
    r: R,
    columns: &[[f32; ROWS]; QUERY_COLUMNS],
    first: usize,
    panel: *const u8,
    at: usize,
    sums: &mut [R::V; ROWS],
) {
    let [quads @ .., offsets, scales] = columns;
    let mut dots = [r.begin(0.0); ROWS];
    macro_rules! begin {
        ($($row:literal)*) => {$( if $row < N { dots[$row] = r.begin(offsets[first + $row]); } )*};
    }
    for_each_row!(begin);
    for (i, query) in quads.iter().enumerate() {
        // SAFETY: the caller's panel, and as many positions as a register has lanes.
        let keys = unsafe { r.quad::<B>(panel, i, at) };
        macro_rules! dot {
            ($($row:literal)*) => {$(
                if $row < N {
                    dots[$row] = r.dot(dots[$row], keys, query[first + $row]);
                }
            )*};
        }
        for_each_row!(dot);
    }
    // SAFETY: a panel begins with the scales of its positions.
    let key_scales = unsafe { r.halves(panel.wrapping_add(2 * at)) };
    macro_rules! add {
        ($($row:literal)*) => {$(
            if $row < N {
                let scaled = r.mul(r.to_float(dots[$row]), key_scales);
                sums[$row] = r.mul_add(scaled, r.splat(scales[first + $row]), sums[$row]);
            }
        )*};
    }
    for_each_row!(add);
}

/// The products on an instruction set other than scalar.
pub(super) fn products<B: Quads>(isa: Isa) -> Products {
    // What does not depend on the blocks is that of floats.
    let of_floats = x86::products::<f32>(isa);
    match isa {
        Isa::Avx512 => Products {
            pack_query: |x| pack_query::<B>(Isa::Avx512, x),
            // SAFETY: an `Isa::Avx512` proves that this CPU has what these are compiled for.
            scores: |of, out| unsafe { scores_512::<B>(of, out) },
            // SAFETY: as above.
            values: |of, sums| unsafe { values_512::<B>(of, sums) },
            ..of_floats
        },
        _ => Products {
            pack_query: |x| pack_query::<B>(Isa::Avx2, x),
            // SAFETY: any other `Isa` than scalar proves that this CPU has what these are compiled for.
            scores: |of, out| unsafe { scores_256::<B>(of, out) },
            // SAFETY: as above.
            values: |of, sums| unsafe { values_256::<B>(of, sums) },
            ..of_floats
        },
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn scores_256<B: Quads>(of: Scores<'_>, out: &mut Weights) {
    scores::<_, B>(Avx2(()), of, out);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn values_256<B: Quads>(of: Values<'_>, sums: Sums<'_>) {
    weighted::<_, B>(Avx2(()), of, sums);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn scores_512<B: Quads>(of: Scores<'_>, out: &mut Weights) {
    scores::<_, B>(Avx512(()), of, out);
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn values_512<B: Quads>(of: Values<'_>, sums: Sums<'_>) {
    weighted::<_, B>(Avx512(()), of, sums);
}

// SAFETY (of all below): the functions above alone make registers here, and are compiled for the instructions;
// of panels and blocks the caller promises that they are there.

impl Integers for Avx2 {
    type I = __m256i;

    #[inline(always)]
    fn begin(self, _offset: f32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn quad<B: Quads>(self, panel: *const u8, i: usize, first: usize) -> __m256i {
        // SAFETY: as above.
        unsafe { B::quad_256(panel, i, first) }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, keys: __m256i, query: f32) -> __m256i {
        // SAFETY: as above. One side must be unsigned, so the keys' signs are moved to the query.
        unsafe {
            let query = _mm256_castps_si256(_mm256_set1_ps(query));
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(keys), _mm256_sign_epi8(query, keys));
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn to_float(self, x: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn halves(self, from: *const u8) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl Integers for Avx512 {
    type I = __m512i;

    #[inline(always)]
    fn begin(self, offset: f32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_castps_si512(_mm512_set1_ps(offset)) }
    }

    #[inline(always)]
    unsafe fn quad<B: Quads>(self, panel: *const u8, i: usize, first: usize) -> __m512i {
        // SAFETY: as above.
        unsafe { B::quad_512(panel, i, first) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, keys: __m512i, query: f32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, keys, _mm512_castps_si512(_mm512_set1_ps(query))) }
    }

    #[inline(always)]
    fn to_float(self, x: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn halves(self, from: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
}

impl Quads for Q8 {
    #[inline(always)]
    unsafe fn quad_256(panel: *const u8, i: usize, first: usize) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_loadu_si256(panel.add(dword_at(i, first)).cast()) }
    }

    #[inline(always)]
    unsafe fn quad_512(panel: *const u8, i: usize, first: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let signed = _mm512_loadu_si512(panel.add(dword_at(i, first)).cast());
            _mm512_xor_si512(signed, _mm512_set1_epi8(-128))
        }
    }
}

impl Quads for Q4 {
    #[inline(always)]
    unsafe fn quad_256(panel: *const u8, i: usize, first: usize) -> __m256i {
        // SAFETY: as above.
        unsafe {
            let both = _mm256_loadu_si256(panel.add(dword_at(i % 4, first)).cast());
            let low = if i < 4 { both } else { _mm256_srli_epi16::<4>(both) };
            _mm256_sub_epi8(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_set1_epi8(8))
        }
    }

    #[inline(always)]
    unsafe fn quad_512(panel: *const u8, i: usize, first: usize) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let both = _mm512_loadu_si512(panel.add(dword_at(i % 4, first)).cast());
            let low = if i < 4 { both } else { _mm512_srli_epi16::<4>(both) };
            _mm512_and_si512(low, _mm512_set1_epi8(15))
        }
    }
}

/// # Safety
/// There are two bytes at `from`.
#[inline(always)]
unsafe fn scale_256(from: *const u8) -> __m256 {
    // SAFETY: as above.
    unsafe { _mm256_cvtph_ps(_mm_set1_epi16(from.cast::<i16>().read_unaligned())) }
}

/// # Safety
/// There are two bytes at `from`.
#[inline(always)]
unsafe fn scale_512(from: *const u8) -> __m512 {
    // SAFETY: as above.
    unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(from.cast::<i16>().read_unaligned())) }
}

/// # Safety
/// There are the numbers of a block at `from`, and `first` is 0, 8, 16 or 24.
#[inline(always)]
unsafe fn q8_256(from: *const u8, first: usize) -> __m256 {
    // SAFETY: as above.
    unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(first).cast()))) }
}

/// # Safety
/// There are the numbers of a block at `from`, and `first` is 0 or 16.
#[inline(always)]
unsafe fn q8_512(from: *const u8, first: usize) -> __m512 {
    // SAFETY: as above.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.add(first).cast()))) }
}

/// # Safety
/// As of [`q8_256`].
#[inline(always)]
unsafe fn q4_256(from: *const u8, first: usize) -> __m256 {
    // SAFETY: as above.
    unsafe {
        let both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(first % 16).cast()));
        let low = _mm256_srl_epi32(both, _mm_cvtsi32_si128((first / 16 * 4) as i32));
        let unsigned = _mm256_and_si256(low, _mm256_set1_epi32(15));
        _mm256_cvtepi32_ps(_mm256_sub_epi32(unsigned, _mm256_set1_epi32(8)))
    }
}

/// # Safety
/// As of [`q8_512`].
#[inline(always)]
unsafe fn q4_512(from: *const u8, first: usize) -> __m512 {
    // SAFETY: as above.
    unsafe {
        let both = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
        let low = _mm512_srl_epi32(both, _mm_cvtsi32_si128((first / 16 * 4) as i32));
        let levels = _mm512_setr_ps(
            -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0,
        );
        // Looks at the lowest four bits alone.
        _mm512_permutexvar_ps(low, levels)
    }
}

format_of_blocks!(Q8, Avx2, scale_256, q8_256);
format_of_blocks!(Q4, Avx2, scale_256, q4_256);
format_of_blocks!(Q8, Avx512, scale_512, q8_512);
format_of_blocks!(Q4, Avx512, scale_512, q4_512);
