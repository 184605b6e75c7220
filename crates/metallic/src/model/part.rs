//! Where a model can be cut: its parts, and the segments of them that are computed in one place.
//!
//! A layer has two parts, its mixer and its network. Half a layer is the unit because that pays: attention with its keys and
//! values may run on a device that has no room for the experts between. The embedding and the head are parts, too: of one a
//! token uses a row, of the other all. Parts are numbered in the order in which they run: the embedding, two for each layer,
//! even where that has no network, and the head.

use std::ops::Range;

/// Some of a model's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts(Vec<bool>);

/// Consecutive parts on one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The number of the stage.
    pub(crate) stage: usize,
    /// The parts.
    pub(crate) parts: Range<usize>,
}

/// A part, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Embedding,
    /// Of a layer.
    Mixer(usize),
    /// Of a layer.
    Network(usize),
    Head,
}

/// The embedding's number.
pub(crate) const EMBEDDING: usize = 0;

/// The number of a layer's mixer among the parts.
pub(crate) const fn mixer_of(layer: usize) -> usize {
    2 * layer + 1
}

/// The number of a layer's network among the parts.
pub(crate) const fn network_of(layer: usize) -> usize {
    2 * layer + 2
}

/// How many parts a model of so many layers has.
pub(crate) const fn n_parts(n_layers: usize) -> usize {
    2 * n_layers + 2
}

impl Part {
    /// The part of this number, in a model of so many layers.
    pub(crate) fn of(number: usize, n_layers: usize) -> Self {
        match number {
            EMBEDDING => Part::Embedding,
            number if number + 1 == n_parts(n_layers) => Part::Head,
            number if number % 2 == 1 => Part::Mixer(number / 2),
            number => Part::Network(number / 2 - 1),
        }
    }
}

impl Parts {
    /// All parts of a model of so many layers.
    pub(crate) fn all(n_layers: usize) -> Self {
        Self(vec![true; n_parts(n_layers)])
    }

    /// Those whose stage, given for each part, has this number.
    pub(crate) fn of_stage(stage_of: &[usize], stage: usize) -> Self {
        Self::those(stage_of.iter().map(|of| *of == stage))
    }

    /// Those for which an answer, of all parts in order, is yes.
    pub(crate) fn those(answers: impl Iterator<Item = bool>) -> Self {
        Self(answers.collect())
    }

    /// These and others of the same model.
    pub(crate) fn and(&self, others: &Self) -> Self {
        Self::those(self.0.iter().zip(&others.0).map(|(a, b)| *a || *b))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }

    /// Whether a part is among them.
    pub(crate) fn has(&self, part: usize) -> bool {
        self.0[part]
    }

    /// Whether the embedding is among them.
    pub(crate) fn has_embedding(&self) -> bool {
        self.0.first() == Some(&true)
    }

    /// Whether the head is among them.
    pub(crate) fn has_head(&self) -> bool {
        self.0.last() == Some(&true)
    }
}

/// The segments of a model, given the stage of each part.
pub(crate) fn segments(stage_of: &[usize]) -> Vec<Segment> {
    let mut end = 0;
    let runs = stage_of.chunk_by(|a, b| a == b).map(|run| {
        let parts = end..end + run.len();
        end = parts.end;
        Segment { stage: run[0], parts }
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_the_longest_runs_of_one_stage() {
        let segment = |stage, parts| Segment { stage, parts };
        assert_eq!(segments(&[0; 4]), [segment(0, 0..4)]);
        let stage_of = [1, 1, 0, 1, 0, 0];
        assert_eq!(
            segments(&stage_of),
            [segment(1, 0..2), segment(0, 2..3), segment(1, 3..4), segment(0, 4..6)]
        );
        let (first, second) = (Parts::of_stage(&stage_of, 0), Parts::of_stage(&stage_of, 1));
        assert!(!first.has(1) && first.has(2) && !first.is_empty());
        assert_eq!(first.and(&second), Parts::all(2));
        assert_eq!((first.has_embedding(), first.has_head()), (false, true));
        assert_eq!((second.has_embedding(), second.has_head()), (true, false));
        assert!(second.has(mixer_of(0)) && first.has(network_of(1)));
    }

    #[test]
    fn each_number_is_one_part() {
        let parts: Vec<Part> = (0..n_parts(2)).map(|number| Part::of(number, 2)).collect();
        let layer = |layer| [Part::Mixer(layer), Part::Network(layer)];
        assert_eq!(parts, [&[Part::Embedding][..], &layer(0), &layer(1), &[Part::Head]].concat());
        for layer in 0..2 {
            assert_eq!(Part::of(mixer_of(layer), 2), Part::Mixer(layer));
            assert_eq!(Part::of(network_of(layer), 2), Part::Network(layer));
        }
    }
}
