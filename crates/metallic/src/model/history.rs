//! The tokens of sequences, for models whose states can't be cut back: what they have read can be read again.

use super::Piece;
use super::kv_cache::PageTable;
use crate::memory::PlanRequest;

/// What the states of each sequence have read.
pub(super) struct History {
    sequences: Vec<Sequence>,
}

/// One sequence.
struct Sequence {
    tokens: Vec<u32>,
    /// Whether the states are those after the tokens: not when a forward pass has failed.
    settled: bool,
}

impl History {
    /// Of as many sequences as were asked for.
    pub(super) fn new(request: &PlanRequest) -> Self {
        let sequence = || Sequence { tokens: Vec::new(), settled: true };
        Self { sequences: (0..request.n_sequences).map(|_| sequence()).collect() }
    }

    /// Whether the states are those before position `start`. Before position 0 there are none to be wrong.
    pub(super) fn is_at(&self, slot: usize, start: usize) -> bool {
        let Sequence { tokens, settled } = &self.sequences[slot];
        start == 0 || (*settled && tokens.len() == start)
    }

    /// The tokens before position `start`, to be read again from the first.
    ///
    /// # Panics
    /// If the sequence has not come so far.
    pub(super) fn read_again(&mut self, slot: usize, start: usize) -> &[u32] {
        let Sequence { tokens, settled } = &mut self.sequences[slot];
        *settled = false;
        assert!(start <= tokens.len(), "position {start} follows {} tokens", tokens.len());
        &tokens[..start]
    }

    /// Of the sequences of these pieces, nothing is certain until they are through.
    pub(super) fn forget(&mut self, pieces: &[Piece<'_>], pages: &PageTable) {
        for piece in pieces {
            let sequence = &mut self.sequences[pages.slot(piece.sequence)];
            sequence.tokens.truncate(piece.start);
            sequence.settled = false;
        }
    }

    /// The states have read these pieces.
    pub(super) fn keep(&mut self, pieces: &[Piece<'_>], pages: &PageTable) {
        for piece in pieces {
            let sequence = &mut self.sequences[pages.slot(piece.sequence)];
            sequence.tokens.extend(piece.tokens);
            sequence.settled = true;
        }
    }
}
