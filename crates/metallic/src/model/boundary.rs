//! What crosses from a segment to the next: rows, through main memory that every stage can reach.

use super::Capacity;
use super::config::{ModelConfig, Wiring};
use super::part::Part;
use super::route::Routes;
use super::scratch::Scratch;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::memory::{Leased, Tier};

/// A kind of rows that some part reads and an earlier one has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crossing {
    /// The hidden state.
    Hidden,
    /// The norm of what a layer reads, where its network takes it beside the mixer.
    Normed,
}

/// What the boundary is for, in plans.
pub(crate) const BOUNDARY: &str = "rows between segments";

/// The rows that cross, of one cut after another.
pub(crate) struct Boundary {
    n_embd: usize,
    rows: Vec<(Crossing, Leased<Vec<f32>>)>,
}

/// What crosses into a part.
fn crossings(config: &ModelConfig, part: usize) -> impl Iterator<Item = Crossing> {
    let beside = match Part::of(part, config.layers.len()) {
        Part::Network(layer) => matches!(config.layers[layer].wiring, Wiring::Parallel { .. }),
        Part::Embedding | Part::Mixer(_) | Part::Head => false,
    };
    std::iter::once(Crossing::Hidden).chain(beside.then_some(Crossing::Normed))
}

/// The kinds of rows that cross anywhere.
fn kinds(config: &ModelConfig, routes: &Routes) -> Vec<Crossing> {
    let mut kinds = Vec::new();
    for crossing in routes.cuts().flat_map(|part| crossings(config, part)) {
        if !kinds.contains(&crossing) {
            kinds.push(crossing);
        }
    }
    kinds
}

impl Boundary {
    /// Values that the rows of a model cut so take.
    ///
    /// # Errors
    /// A size beyond the address space.
    pub(crate) fn len(config: &ModelConfig, routes: &Routes, n_batch: usize) -> Result<usize> {
        let too_large = Error::TooLarge { what: BOUNDARY };
        let rows = kinds(config, routes).len().checked_mul(n_batch);
        rows.and_then(|rows| rows.checked_mul(config.n_embd)).ok_or(too_large)
    }

    /// Room for the rows of a model cut so.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn new(config: &ModelConfig, routes: &Routes, capacity: Capacity, ram: &Tier) -> Result<Self> {
        let rows = kinds(config, routes).into_iter().map(|kind| {
            let rows = ram.zeros(BOUNDARY, capacity.n_batch * config.n_embd)?;
            Ok((kind, rows))
        });
        Ok(Self { n_embd: config.n_embd, rows: rows.collect::<Result<_>>()? })
    }

    /// Takes over what crosses into `part`, of so many rows.
    pub(super) fn leave<B: Backend>(
        &mut self,
        config: &ModelConfig,
        part: usize,
        n_rows: usize,
        backend: &mut B,
        scratch: &Scratch<B>,
    ) -> Result<()> {
        for crossing in crossings(config, part) {
            let n_values = n_rows * self.n_embd;
            let (_, rows) = self.rows.iter_mut().find(|(kind, _)| *kind == crossing).expect(PLANNED);
            let from = match crossing {
                Crossing::Hidden => &scratch.hidden,
                Crossing::Normed => &scratch.normed,
            };
            backend.read(from, 0, &mut rows[..n_values])?;
        }
        Ok(())
    }

    /// Hands over what crosses into `part`, of so many rows.
    pub(super) fn enter<B: Backend>(
        &self,
        config: &ModelConfig,
        part: usize,
        n_rows: usize,
        backend: &mut B,
        scratch: &mut Scratch<B>,
    ) -> Result<()> {
        for crossing in crossings(config, part) {
            let n_values = n_rows * self.n_embd;
            let (_, rows) = self.rows.iter().find(|(kind, _)| *kind == crossing).expect(PLANNED);
            let to = match crossing {
                Crossing::Hidden => &mut scratch.hidden,
                Crossing::Normed => &mut scratch.normed,
            };
            backend.write(&rows[..n_values], to)?;
        }
        Ok(())
    }
}

/// The boundary is made of the segments that run.
const PLANNED: &str = "rows of each kind that crosses";
