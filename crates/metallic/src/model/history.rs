//! The tokens of sequences, for models whose states can't be cut back: what they have read can be read again.

use super::kv_cache::PageTable;
use super::role::ReadAs;
use super::{Capacity, Piece, Role};
use crate::error::{Error, Result};
use crate::memory::{Lease, Tier};

/// What [`History`] is for, in plans.
pub(crate) const HISTORY: &str = "tokens of sequences";

/// What the states of each sequence have read.
pub(crate) struct History {
    sequences: Vec<Sequence>,
    _lease: Lease,
}

/// One sequence.
struct Sequence {
    tokens: Vec<u32>,
    read_as: ReadAs,
    /// Whether the states are those after the tokens: not when a forward pass has failed or was interrupted.
    settled: bool,
}

impl History {
    /// Of as many sequences, each as long, as were asked for.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn new(capacity: Capacity, ram: &Tier) -> Result<Self> {
        let bytes = Self::bytes(capacity.n_ctx, capacity.n_sequences);
        let lease = ram.lease(HISTORY, bytes)?;
        let sequence = |_| {
            let mut tokens = Vec::new();
            let no_memory = |_| Error::OutOfMemory { what: HISTORY, bytes };
            tokens.try_reserve_exact(capacity.n_ctx).map_err(no_memory)?;
            Ok(Sequence { tokens, read_as: ReadAs::default(), settled: true })
        };
        let sequences = (0..capacity.n_sequences).map(sequence).collect::<Result<_>>()?;
        Ok(Self { sequences, _lease: lease })
    }

    /// Bytes that this takes.
    pub(crate) fn bytes(n_ctx: usize, n_sequences: usize) -> u64 {
        (n_ctx as u64).saturating_mul(n_sequences as u64).saturating_mul(size_of::<u32>() as u64)
    }

    /// Whether the states are those before position `start`. Before position 0 there are none to be wrong.
    pub(super) fn is_at(&self, slot: usize, start: usize) -> bool {
        let Sequence { tokens, settled, .. } = &self.sequences[slot];
        start == 0 || (*settled && tokens.len() == start)
    }

    /// The tokens before position `start`, to be read again from the first, as what they were read before: in runs of one
    /// role, each with the position of its first.
    ///
    /// # Panics
    /// If the sequence has not come so far.
    pub(super) fn read_again(
        &mut self,
        slot: usize,
        start: usize,
    ) -> impl Iterator<Item = (usize, &[u32], Role)> {
        let Sequence { tokens, read_as, settled } = &mut self.sequences[slot];
        *settled = false;
        assert!(start <= tokens.len(), "position {start} follows {} tokens", tokens.len());
        let tokens = &tokens[..start];
        read_as.runs().scan(0, move |first, (end, role)| {
            let run = *first..end.min(start);
            *first = run.end;
            (!run.is_empty()).then(|| (run.start, &tokens[run], role))
        })
    }

    /// Of the sequences of these pieces, nothing is certain until they are through.
    pub(super) fn forget(&mut self, pieces: &[Piece<'_>], pages: &PageTable) {
        for piece in pieces {
            let sequence = &mut self.sequences[pages.slot(piece.sequence)];
            sequence.tokens.truncate(piece.start);
            sequence.read_as.truncate(piece.start);
            sequence.settled = false;
        }
    }

    /// The states have read these pieces.
    pub(super) fn keep(&mut self, pieces: &[Piece<'_>], pages: &PageTable) {
        for piece in pieces {
            let sequence = &mut self.sequences[pages.slot(piece.sequence)];
            sequence.tokens.extend(piece.tokens);
            sequence.read_as.push(sequence.tokens.len(), piece.role);
            sequence.settled = true;
        }
    }
}
