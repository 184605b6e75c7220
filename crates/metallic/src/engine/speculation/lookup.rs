//! Guesses by look-up: what followed the last few tokens when they came before, in the prompt or the answer.

use super::{MAX_KINDS, Proposer, Unfinished};
use crate::error::Result;
use crate::model::{MIN_MATCH, Model, Repeats};

/// Tokens that came before, at least, of each kind: what follows many is more often the same.
const KINDS: [usize; MAX_KINDS] = [MIN_MATCH, 4, 8, 16];

/// Guesses by what came before in the same sequence.
pub struct Lookup(Repeats);

impl Lookup {
    /// For the sequences of a model, in memory that is charged to its account.
    ///
    /// # Errors
    /// No memory.
    pub fn new(model: &Model) -> Result<Self> {
        Ok(Self(model.repeats()?))
    }
}

impl Proposer for Lookup {
    fn propose(&mut self, sequences: &mut [Unfinished<'_>]) -> Result<()> {
        for Unfinished { slot, tokens, n_wanted, guesses, kind, .. } in sequences {
            let of_length = |len| {
                *kind = KINDS.iter().rposition(|least| len >= *least).unwrap_or(0);
                n_wanted[*kind]
            };
            self.0.guess(*slot, tokens, of_length, guesses);
        }
        Ok(())
    }

    fn n_kinds(&self) -> usize {
        KINDS.len()
    }

    fn description(&self) -> String {
        "look-up in the prompt and the answer".to_owned()
    }
}
