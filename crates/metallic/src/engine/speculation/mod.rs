//! Speculation: tokens are guessed, and one forward pass finds which guesses are what the model says.
//!
//! A pass over a token and guesses after it gives the logits at each place, with the bits that they have one at a time. From each
//! row the next token is chosen as ever, by the same sampler and form; the next row counts only if its guess was just that token.
//! So an answer is the same text with and without guesses, however many there are, at any temperature: what guesses change is
//! how many tokens come of a pass. (Where random numbers choose, a guess that is itself drawn with the same ones is right most
//! often: see Daliri, Musco and Suresh 2025, "Coupling without Communication and Drafter-Invariant Speculative Decoding".)
//! Nothing is chosen after a guess that was wrong, so there is nothing to take back but keys and values, which are written over.

mod acceptance;
mod draft;
mod lookup;
mod speculating;

pub(super) use acceptance::Acceptance;
pub use draft::{DEFAULT_MIN_CHANCE, Draft};
pub use lookup::Lookup;
pub(super) use speculating::Speculating;

use std::fmt;

use crate::error::Result;
use crate::sampling::Sampler;

/// Kinds of guesses that a proposer may tell apart.
pub const MAX_KINDS: usize = 4;

/// Guesses what comes next.
pub trait Proposer: Send {
    /// Guesses what follows each of some sequences.
    ///
    /// # Errors
    /// What a model that guesses may fail with. It ends the requests.
    fn propose(&mut self, sequences: &mut [Unfinished<'_>]) -> Result<()>;

    /// How many kinds of guesses it tells apart, at most [`MAX_KINDS`].
    fn n_kinds(&self) -> usize {
        1
    }

    /// One line for people: what guesses.
    fn description(&self) -> String;
}

/// A sequence, and room for guesses of what follows it.
pub struct Unfinished<'a> {
    /// Which sequence it is: one at a time has each number, below the model's number of sequences.
    pub slot: usize,
    /// All tokens so far, prompt and answer. The next time there may be more, or, with another request, others.
    pub tokens: &'a [u32],
    /// What will choose the tokens that are guessed.
    pub sampler: &'a Sampler,
    /// Guesses that are wanted at most, of each kind; of some at least one.
    pub n_wanted: [usize; MAX_KINDS],
    /// Where the guesses go, the next token's first.
    pub guesses: &'a mut Vec<u32>,
    /// Which kind the guesses are: those of a kind are as often right as others of it were.
    pub kind: usize,
}

/// How an engine guesses.
pub struct Speculation {
    /// What guesses.
    pub proposer: Box<dyn Proposer>,
    /// Guesses for a pass of a sequence, at most.
    pub n_max: usize,
    /// Fewer are not tried.
    pub n_min: usize,
    /// Whether there are only as many as are worth their time; else there are always `n_max`, where the proposer has them.
    pub adapts: bool,
}

impl Speculation {
    /// At most 16 guesses for a pass, and as few as are worth it.
    pub fn new(proposer: Box<dyn Proposer>) -> Self {
        Self { proposer, n_max: DEFAULT_MAX_GUESSES, n_min: 0, adapts: true }
    }
}

impl fmt::Debug for Speculation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proposer, n_max, n_min, adapts } = self;
        let n_min = if *adapts { n_min } else { n_max };
        write!(f, "Speculation {{ {}, {n_min} to {n_max} guesses }}", proposer.description())
    }
}

/// Guesses for a pass of a sequence unless another number is asked for.
pub const DEFAULT_MAX_GUESSES: usize = 16;
