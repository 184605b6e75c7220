//! Root-mean-square and layer normalization.

use crate::isa::Isa;
use crate::lanes;
use crate::pool::ThreadPool;

/// What rows are normed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `x / √(mean(x²) + eps)` (Zhang and Sennrich 2019).
    Rms,
    /// `(x − mean(x)) / √(variance(x) + eps)` (Ba, Kiros and Hinton 2016).
    Layer,
}

/// A norm: each value becomes `normed · weight + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// What comes before the weight.
    pub kind: NormKind,
    /// A factor for each value.
    pub weight: &'a [f32],
    /// A summand for each value.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square or variance.
    pub eps: f32,
}

/// What happens to one value: `(x − mean) · factor + bias`.
#[derive(Clone, Copy)]
struct Line {
    mean: f32,
    factor: f32,
    bias: f32,
}

impl Line {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        (x - self.mean) * self.factor + self.bias
    }
}

impl Norm<'_> {
    /// The norm of `x`, written to `out`.
    ///
    /// # Panics
    /// If `out`, the weight or the bias are not as long as `x`.
    pub fn write(&self, isa: Isa, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "output as long as the input");
        isa.run(
            #[inline(always)]
            || self.each(self.measure(x), out.iter_mut().zip(x), |(out, x), line| *out = line.at(*x)),
        );
    }

    /// The norm of `x`, written over it.
    ///
    /// # Panics
    /// If the weight or the bias are not as long as `x`.
    pub fn write_over(&self, isa: Isa, x: &mut [f32]) {
        isa.run(
            #[inline(always)]
            || self.each(self.measure(x), x.iter_mut(), |x, line| *x = line.at(*x)),
        );
    }

    /// The norm of `x` times `scale`, added to `acc`.
    ///
    /// # Panics
    /// If `acc`, the weight or the bias are not as long as `x`.
    pub fn add(&self, isa: Isa, x: &[f32], scale: f32, acc: &mut [f32]) {
        assert_eq!(acc.len(), x.len(), "a sum for each value");
        isa.run(
            #[inline(always)]
            || {
                self.each(self.measure(x), acc.iter_mut().zip(x), |(acc, x), line| {
                    *acc += scale * line.at(*x)
                });
            },
        );
    }

    /// The norm of each row of `x`, shared out among the pool's threads.
    ///
    /// # Panics
    /// If `out` is not as long as `x`.
    pub fn write_rows(&self, pool: &ThreadPool, isa: Isa, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "output as long as the input");
        let row_len = self.weight.len();
        pool.split_rows(out, row_len, &|first, out| {
            let x = &x[first * row_len..][..out.len()];
            for (x, out) in x.chunks_exact(row_len).zip(out.chunks_exact_mut(row_len)) {
                self.write(isa, x, out);
            }
        });
    }

    /// The mean that is taken away, and what is multiplied with.
    #[inline(always)]
    fn measure(&self, x: &[f32]) -> [f32; 2] {
        let n = x.len() as f32;
        let mean = match self.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => lanes::sum(x, |x| x) / n,
        };
        let square = |x: f32| x * x;
        [mean, 1.0 / (lanes::sum(x, |x| square(x - mean)) / n + self.eps).sqrt()]
    }

    /// Calls `set` with each of the values and what is to become of it.
    #[inline(always)]
    fn each<T>(
        &self,
        [mean, scale]: [f32; 2],
        values: impl ExactSizeIterator<Item = T>,
        set: impl Fn(T, Line),
    ) {
        assert_eq!(values.len(), self.weight.len(), "a weight for each value");
        let weighted = values.zip(self.weight);
        match self.bias {
            Some(bias) => {
                assert_eq!(bias.len(), self.weight.len(), "a bias for each value");
                let biased = weighted.zip(bias);
                biased.for_each(|((value, w), &bias)| set(value, Line { mean, factor: scale * w, bias }));
            }
            None => weighted.for_each(|(value, w)| set(value, Line { mean, factor: scale * w, bias: 0.0 })),
        }
    }
}
