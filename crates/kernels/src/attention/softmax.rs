//! From the scores of a step to weights, and how steps are put together.

use std::ops::Range;

use super::POSITIONS;
use crate::{activation, lanes};

/// What a row's weights are relative to, and their sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Softmax {
    /// The largest score.
    pub(super) largest: f32,
    /// Σ e^(score − largest).
    pub(super) sum: f32,
}

impl Softmax {
    /// Of no positions.
    pub(super) const NONE: Softmax = Softmax { largest: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns the scores of the `visible` positions of a step into weights relative to the largest of them,
    /// and those of the others into 0.
    ///
    /// Plain loops over whole registers, compiled for each instruction set: with the same bits on all.
    #[inline(always)]
    pub(super) fn weigh(scores: &mut [f32; POSITIONS], visible: Range<usize>) -> Self {
        if visible.is_empty() {
            scores.fill(0.0);
            return Self::NONE;
        }
        let (before, after) = (0..visible.start, visible.end..POSITIONS);
        scores[before.clone()].fill(f32::NEG_INFINITY);
        scores[after.clone()].fill(f32::NEG_INFINITY);
        let largest = lanes::max(scores);
        scores.iter_mut().for_each(|x| *x = activation::exp(*x - largest));
        scores[before].fill(0.0);
        scores[after].fill(0.0);
        Self { largest, sum: lanes::sum(scores, |x| x) }
    }

    /// Adds the positions of `part`. Returns what sums relative to this and to `part` must be multiplied by
    /// before they are added.
    pub(super) fn join(&mut self, part: Softmax) -> [f32; 2] {
        if part.sum == 0.0 {
            return [1.0, 0.0];
        }
        let largest = self.largest.max(part.largest);
        let factors = [activation::exp(self.largest - largest), activation::exp(part.largest - largest)];
        self.sum = self.sum * factors[0] + part.sum * factors[1];
        self.largest = largest;
        factors
    }
}
