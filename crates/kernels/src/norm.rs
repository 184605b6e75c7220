//! Root-mean-square and layer normalization.

use crate::isa::Isa;
use crate::lanes;
use crate::pool::ThreadPool;

/// `out[i] = x[i] / √(mean(x²) + eps) · weight[i]` (Zhang and Sennrich 2019), without the last factor
/// where there is no weight.
///
/// # Panics
/// If `out` or `weight` are not as long as `x`.
pub fn rms_norm(isa: Isa, x: &[f32], weight: Option<&[f32]>, eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "output as long as the input");
    isa.run(
        #[inline(always)]
        || {
            let scale = rms_scale(x, eps);
            each_scaled(out.iter_mut().zip(x), scale, weight, |(out, x), scale| *out = x * scale);
        },
    );
}

/// [`rms_norm`] of `x`, written over it.
///
/// # Panics
/// If `weight` is not as long as `x`.
pub fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: Option<&[f32]>, eps: f32) {
    isa.run(
        #[inline(always)]
        || {
            let scale = rms_scale(x, eps);
            each_scaled(x.iter_mut(), scale, weight, |x, scale| *x *= scale);
        },
    );
}

/// `acc[i] += x[i] / √(mean(x²) + eps) · weight[i]`.
///
/// # Panics
/// If `acc` or `weight` are not as long as `x`.
pub fn add_rms_norm(isa: Isa, acc: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    assert_eq!(acc.len(), x.len(), "a sum for each value");
    isa.run(
        #[inline(always)]
        || {
            let scale = rms_scale(x, eps);
            each_scaled(acc.iter_mut().zip(x), scale, Some(weight), |(acc, x), scale| *acc += x * scale);
        },
    );
}

/// `1 / √(mean(x²) + eps)`.
#[inline(always)]
fn rms_scale(x: &[f32], eps: f32) -> f32 {
    1.0 / (lanes::sum(x, |x| x * x) / x.len() as f32 + eps).sqrt()
}

/// Calls `set` with each of the values and what it is multiplied by: `scale`, times its weight where there are weights.
#[inline(always)]
fn each_scaled<T>(
    values: impl ExactSizeIterator<Item = T>,
    scale: f32,
    weight: Option<&[f32]>,
    set: impl Fn(T, f32),
) {
    match weight {
        Some(weight) => {
            assert_eq!(values.len(), weight.len(), "a weight for each value");
            values.zip(weight).for_each(|(value, w)| set(value, scale * w));
        }
        None => values.for_each(|value| set(value, scale)),
    }
}

/// [`rms_norm`] of each row of `x`, rows of `row_len` values, shared out among the pool's threads.
///
/// # Panics
/// If `out` is not as long as `x`, or `weight` not as long as a row.
pub fn rms_norm_rows(
    pool: &ThreadPool,
    isa: Isa,
    x: &[f32],
    row_len: usize,
    weight: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len(), "output as long as the input");
    pool.split_rows(out, row_len, &|first, out| {
        let x = &x[first * row_len..][..out.len()];
        for (x, out) in x.chunks_exact(row_len).zip(out.chunks_exact_mut(row_len)) {
            rms_norm(isa, x, weight, eps, out);
        }
    });
}

/// `out[i] = (x[i] − mean(x)) / √(variance(x) + eps) · weight[i] + bias[i]` (Ba, Kiros and Hinton 2016).
///
/// # Panics
/// If `out`, `weight` or `bias` are not as long as `x`.
pub fn layer_norm(
    isa: Isa,
    x: &[f32],
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len(), "output as long as the input");
    isa.run(
        #[inline(always)]
        || {
            let mean = lanes::sum(x, |x| x) / x.len() as f32;
            out.iter_mut().zip(x).for_each(|(out, x)| *out = x - mean);
            let variance = lanes::sum(out, |x| x * x) / x.len() as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            each_scaled(out.iter_mut(), scale, weight, |out, scale| *out *= scale);
            if let Some(bias) = bias {
                assert_eq!(out.len(), bias.len(), "a bias for each value");
                out.iter_mut().zip(bias).for_each(|(out, b)| *out += b);
            }
        },
    );
}
