//! Experts that stay in the device's memory, of a matrix whose experts are swapped in once they are chosen.

use std::ops::Range;

use metallic::memory::{Places, Residence};

use crate::error::Result;
use crate::memory::{GpuBuffer, Vram};

/// What [`ExpertCache::first_rows`] has for an expert that is not in a buffer.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// The places of a matrix, in as few buffers as the device can bind.
pub(crate) struct ExpertCache {
    places: Places,
    /// Rows of an expert, and their bytes.
    n_rows: usize,
    expert_bytes: u64,
    buffers: Vec<GpuBuffer>,
    /// Places in each buffer.
    in_buffer: usize,
}

/// What a batch is sent to and is not on the device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Experts that are to stay.
    pub(crate) staying: Vec<usize>,
    /// Rows of the others, in the matrix.
    pub(crate) passing: Vec<Range<usize>>,
}

impl ExpertCache {
    /// Of a matrix of so many rows and bytes.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn new(places: Places, n_rows: usize, n_bytes: u64, vram: &Vram) -> Result<Self> {
        let (n_experts, n_places) = (places.n_experts(), places.n_places());
        let expert_bytes = n_bytes / n_experts as u64;
        let in_buffer = (vram.device.max_binding_bytes() / expert_bytes.max(1)).max(1) as usize;
        let buffer = |first: usize| {
            let n_places = in_buffer.min(n_places - first) as u64;
            vram.bytes("expert cache", n_places * expert_bytes)
        };
        let buffers = (0..n_places).step_by(in_buffer).map(buffer).collect::<Result<_>>()?;
        Ok(Self { places, n_rows: n_rows / n_experts, expert_bytes, buffers, in_buffer })
    }

    /// Begins a batch that is sent to these experts, each with its number of rows. Returns what is missing, and how many are
    /// here and how many are not.
    pub(crate) fn begin(&mut self, wanted: &[(usize, usize)]) -> (Missing, (u64, u64)) {
        let counts = self.places.begin(wanted.iter().copied());
        let mut missing = Missing::default();
        for (expert, _) in wanted {
            match self.places.residence(*expert) {
                Residence::Held(_) => {}
                Residence::ToFill(_) => missing.staying.push(*expert),
                Residence::None => {
                    let rows = self.rows(*expert);
                    match missing.passing.last_mut() {
                        Some(last) if last.end == rows.start => last.end = rows.end,
                        _ => missing.passing.push(rows),
                    }
                }
            }
        }
        (missing, counts)
    }

    /// The rows of an expert in the matrix.
    pub(crate) fn rows(&self, expert: usize) -> Range<usize> {
        expert * self.n_rows..(expert + 1) * self.n_rows
    }

    /// The bytes of an expert.
    pub(crate) fn expert_bytes(&self) -> u64 {
        self.expert_bytes
    }

    /// Where an expert is, or is to be: a buffer, and the byte in it.
    pub(crate) fn place(&self, expert: usize) -> Option<(&GpuBuffer, u64)> {
        let (Residence::Held(place) | Residence::ToFill(place)) = self.places.residence(expert) else {
            return None;
        };
        let buffer = &self.buffers[place / self.in_buffer];
        Some((buffer, (place % self.in_buffer) as u64 * self.expert_bytes))
    }

    /// Says that the place of an expert has it now.
    pub(crate) fn filled(&mut self, expert: usize) {
        self.places.filled(expert);
    }

    /// The buffers, each with the row in it at which each expert begins that it has, and its rows.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = (&GpuBuffer, Vec<u32>, usize)> {
        self.buffers.iter().enumerate().map(|(number, buffer)| {
            let first_row = |expert| match self.places.residence(expert) {
                Residence::Held(place) if place / self.in_buffer == number => {
                    (place % self.in_buffer * self.n_rows) as u32
                }
                _ => NOWHERE,
            };
            let first_rows = (0..self.places.n_experts()).map(first_row).collect();
            (buffer, first_rows, self.in_buffer * self.n_rows)
        })
    }
}
