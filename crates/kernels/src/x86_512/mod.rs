//! Rows of weights and groups of activations in AVX-512, a few tokens at a time.
//!
//! 256 weights meet one group of activations in four registers of 64 quants. In each, a lane has 4 weights of one run of
//! 16, so that four multiplications leave one register with 16 numbers, one for each 16 weights, in the order that
//! [`lane`](crate::activations::lane) says and the group's own numbers have. So scales are multiplied once for 256 weights, and
//! formats with a scale for each 16 weights cost little more than others. Quants are unsigned, for the instruction wants one
//! side so; what that adds is taken off with the sums of the activations.
//!
//! [Four rows](dot_rows) are taken one after the other, since one stream of weights is what memory serves
//! fastest, and then finished together: what they have beyond a whole number of groups, two blocks of each
//! row at a time, and the sums of their lanes. All that a group of weights needs before it meets activations ([`Weights`])
//! is done once for up to eight tokens; formats say it with what [`unpack`] has.

mod unpack;

use std::arch::x86_64::*;

pub(crate) use unpack::*;

use crate::activations::{GROUP_BLOCKS, Q8Group, n_groups};
use crate::block::{QuantBlock, blocks, zeroed};
use crate::x86::prefetch_after;

/// From 64 quants in each register as a row has them, two blocks, to four in each for each [`lane`]: transposes 4 × 4 numbers
/// of 32 bits in each quarter of the registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn by_lane([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Products of 256 unsigned quants that lie [by lane](by_lane) with a group, summed by sixteens from `start` on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dots(start: __m512i, [a, b, c, d]: [__m512i; 4], x: &Q8Group) -> __m512 {
    // SAFETY: reads the 64 bytes of the reference, which are aligned as a group is.
    let x = |i: usize| unsafe { _mm512_load_si512(x.quants[i].as_ptr().cast()) };
    let half = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(start, a, x(0)), b, x(1));
    _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(half, c, x(2)), d, x(3)))
}

/// 256 weights, ready to meet any number of tokens: `w = scale · (q − 128)`, or with minima `w = scale · q − min`.
pub(crate) struct Weights<const MINS: bool> {
    quants: [__m512i; 4],
    scales: __m512,
    /// 0 where there are none.
    mins: __m512,
}

impl Weights<false> {
    /// From quants plus 128, [by lane](by_lane), and the scale of each lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn new(quants: [__m512i; 4], scales: __m512) -> Self {
        Self { quants, scales, mins: _mm512_setzero_ps() }
    }

    /// The same from quants plus something less, which is given what it lacks.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn raised([a, b, c, d]: [__m512i; 4], by: __m512i, scales: __m512) -> Self {
        let raised = |quants| _mm512_add_epi8(quants, by);
        Self::new([raised(a), raised(b), raised(c), raised(d)], scales)
    }
}

impl Weights<true> {
    /// From unsigned quants, [by lane](by_lane), and the scale and minimum of each lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(crate) fn with_mins(quants: [__m512i; 4], scales: __m512, mins: __m512) -> Self {
        Self { quants, scales, mins }
    }
}

impl<const MINS: bool> Weights<MINS> {
    /// Adds the products with a group to the sum of each lane.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    fn add(&self, sum: __m512, x: &Q8Group) -> __m512 {
        let scales = load_f32(&x.scales);
        if MINS {
            let offsets = _mm512_mul_ps(self.mins, load_f32(&x.sums));
            let dots = dots(_mm512_setzero_si512(), self.quants, x);
            return _mm512_fmadd_ps(_mm512_fmsub_ps(dots, self.scales, offsets), scales, sum);
        }
        // SAFETY: reads the 64 bytes of the reference, which are aligned as a group is.
        let offsets = unsafe { _mm512_load_si512(x.offsets.as_ptr().cast()) };
        _mm512_fmadd_ps(dots(offsets, self.quants, x), _mm512_mul_ps(self.scales, scales), sum)
    }
}

/// The dot products of rows with the groups of each token; `unpack` makes weights of the `N` blocks that hold 256.
///
/// # Panics
/// If `rows`, `x` and `out` don't go with each other: as many products for each token as rows, as many groups as a row takes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(crate) fn dot_rows<B: QuantBlock, const N: usize, const MINS: bool>(
    rows: &[u8],
    x: &[Q8Group],
    n_tokens: usize,
    out: &mut [f32],
    unpack: impl Fn(&[B; N]) -> Weights<MINS>,
) {
    const { assert!(N * B::TYPE.block_len() == 256) };
    let rows = blocks::<B>(rows);
    let n_rows = out.len() / n_tokens;
    let row_len = rows.len() / n_rows.max(1);
    assert!(row_len > 0 && row_len * n_rows == rows.len(), "rows are equally long");
    let x_len = n_groups(row_len * (GROUP_BLOCKS / N));
    assert_eq!(x.len(), n_tokens * x_len, "the groups are those of a row for each token");
    let mut first = 0;
    while first < n_tokens {
        let (x, out) = (&x[first * x_len..], &mut out[first * n_rows..]);
        first += match n_tokens - first {
            8.. => dot_few::<B, N, MINS, 8>(rows, row_len, x, x_len, out, n_rows, &unpack),
            4.. => dot_few::<B, N, MINS, 4>(rows, row_len, x, x_len, out, n_rows, &unpack),
            2.. => dot_few::<B, N, MINS, 2>(rows, row_len, x, x_len, out, n_rows, &unpack),
            _ => dot_few::<B, N, MINS, 1>(rows, row_len, x, x_len, out, n_rows, &unpack),
        };
    }
}

/// Groups of several tokens that four rows meet in turn, so that all but the first find them in the first-level cache.
const GROUPS_AT_ONCE: usize = 4;

/// [`dot_rows`] for `T` tokens, of which it returns the number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn dot_few<B: QuantBlock, const N: usize, const MINS: bool, const T: usize>(
    rows: &[B],
    row_len: usize,
    x: &[Q8Group],
    x_len: usize,
    out: &mut [f32],
    n_rows: usize,
    unpack: &impl Fn(&[B; N]) -> Weights<MINS>,
) -> usize {
    let n_whole = row_len / N;
    let at_once = if T == 1 { n_whole.max(1) } else { GROUPS_AT_ONCE };
    for (four, rows) in rows.chunks(4 * row_len).enumerate() {
        let mut sums = [[_mm512_setzero_ps(); 4]; T];
        for first in (0..n_whole).step_by(at_once) {
            let groups = first..(first + at_once).min(n_whole);
            for (r, row) in rows.chunks_exact(row_len).enumerate() {
                let mut of_row = [_mm512_setzero_ps(); T];
                for t in 0..T {
                    of_row[t] = sums[t][r];
                }
                let row = &row.as_chunks::<N>().0[groups.clone()];
                let mut tokens = [x; T];
                for (t, token) in tokens.iter_mut().enumerate() {
                    *token = &x[t * x_len + first..][..row.len()];
                }
                for (i, group) in row.iter().enumerate() {
                    prefetch_after(group);
                    let weights = unpack(group);
                    for t in 0..T {
                        of_row[t] = weights.add(of_row[t], &tokens[t][i]);
                    }
                }
                for t in 0..T {
                    sums[t][r] = of_row[t];
                }
            }
        }
        let mut of_four = [_mm512_setzero_ps(); T];
        for t in 0..T {
            of_four[t] = transpose(sums[t]);
        }
        for i in n_whole..x_len {
            let weights = unpack(&pairs(rows, row_len, i - n_whole));
            for t in 0..T {
                of_four[t] = weights.add(of_four[t], &x[t * x_len + i]);
            }
        }
        let n = rows.len() / row_len;
        for t in 0..T {
            out[t * n_rows + 4 * four..][..n].copy_from_slice(&sum_of_fours(of_four[t])[..n]);
        }
    }
    T
}

/// The `i`-th 64 weights beyond whole groups of each of up to four rows; zeros where there are none.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn pairs<B: QuantBlock, const N: usize>(rows: &[B], row_len: usize, i: usize) -> [B; N] {
    let mut pairs = [zeroed(); N];
    let each = (N / 4).max(1);
    let first = row_len - row_len % N + i * each;
    for (place, block) in pairs.iter_mut().enumerate() {
        let (row, place) = (place / each, first + place % each);
        if place < row_len
            && let Some(found) = rows.get(row * row_len + place)
        {
            *block = *found;
        }
    }
    pairs
}

/// The sums of four registers, still in four parts each: one in each four lanes, in order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn transpose([a, b, c, d]: [__m512; 4]) -> __m512 {
    let pairs = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (ab, cd) = (_mm512_castps_pd(pairs(a, b)), _mm512_castps_pd(pairs(c, d)));
    let (first, second) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
    _mm512_add_ps(_mm512_castpd_ps(first), _mm512_castpd_ps(second))
}

/// The sum of four times four lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sum_of_fours(x: __m512) -> [f32; 4] {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let mut out = [0.0; 4];
    // SAFETY: writes the 4 floats of the array, at any alignment.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), four) };
    out
}
