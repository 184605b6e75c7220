//! Where the tokens of sequences came before: found as LZ77 finds repetitions. Tokens are hashed two by two, and positions of
//! one hash are linked from the latest back, so that each token takes the same time and memory, whatever comes.

use std::collections::TryReserveError;
use std::mem;

use super::Capacity;
use crate::error::{Error, Result};
use crate::memory::{Lease, Tier};

/// What [`Repeats`] are for, in plans.
pub(crate) const REPEATS: &str = "look-up of guesses";

/// Tokens that must have come before in the same order.
pub(crate) const MIN_MATCH: usize = 2;

/// Tokens that are compared at most: a longer match says no more.
pub(crate) const MAX_MATCH: usize = 32;

/// Earlier places that are compared at most, the latest first.
const MAX_PLACES: usize = 32;

/// What came before in each of some sequences.
pub(crate) struct Repeats {
    sequences: Vec<Index>,
    _lease: Lease,
}

impl Repeats {
    /// Of as many sequences, each as long, as a model was loaded for.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn new(capacity: Capacity, ram: &Tier) -> Result<Self> {
        let bytes = Self::bytes(capacity.n_ctx, capacity.n_sequences);
        let lease = ram.lease(REPEATS, bytes)?;
        let no_memory = |_| Error::OutOfMemory { what: REPEATS, bytes };
        let index = |_| Index::new(capacity.n_ctx).map_err(no_memory);
        Ok(Self { sequences: (0..capacity.n_sequences).map(index).collect::<Result<_>>()?, _lease: lease })
    }

    /// Bytes that this takes.
    pub(crate) fn bytes(n_ctx: usize, n_sequences: usize) -> u64 {
        let n_positions = n_ctx as u64 + 1;
        let of_one = (2 * n_positions + n_buckets(n_ctx) as u64) * size_of::<u32>() as u64;
        of_one.saturating_mul(n_sequences as u64)
    }

    /// Guesses what follows a sequence by what followed its last tokens before. `n_wanted` is told how many of them came before,
    /// and says how many guesses there are to be. There are none if not even [`MIN_MATCH`] did.
    pub(crate) fn guess(
        &mut self,
        sequence: usize,
        tokens: &[u32],
        n_wanted: impl FnOnce(usize) -> usize,
        guesses: &mut Vec<u32>,
    ) {
        let index = &mut self.sequences[sequence];
        index.follow(tokens);
        if let Some((place, len)) = index.longest_match() {
            index.continue_from(place, n_wanted(len), guesses);
        }
    }
}

/// Where the tokens of one sequence came before.
struct Index {
    tokens: Vec<u32>,
    /// For each position, the one before whose pair of tokens has the same hash; [`NONE`] for the first.
    before: Vec<u32>,
    /// The last position of each hash.
    last: Vec<u32>,
}

const NONE: u32 = u32::MAX;

/// A power of two, so that hashes are a few bits.
fn n_buckets(n_ctx: usize) -> usize {
    n_ctx.next_power_of_two()
}

impl Index {
    fn new(n_ctx: usize) -> std::result::Result<Self, TryReserveError> {
        let (mut tokens, mut before, mut last) = (Vec::new(), Vec::new(), Vec::new());
        tokens.try_reserve_exact(n_ctx + 1)?;
        before.try_reserve_exact(n_ctx + 1)?;
        last.try_reserve_exact(n_buckets(n_ctx))?;
        last.resize(n_buckets(n_ctx), NONE);
        Ok(Self { tokens, before, last })
    }

    /// Takes in what is new of a sequence, or all of another.
    fn follow(&mut self, tokens: &[u32]) {
        let n_known = self.tokens.len();
        if tokens.get(..n_known) != Some(&self.tokens[..]) {
            self.tokens.clear();
            self.before.clear();
            self.last.fill(NONE);
        }
        for &token in &tokens[self.tokens.len()..] {
            // The pair before is linked only now, so that the last one finds others.
            if let Some(end) = self.tokens.len().checked_sub(1) {
                self.link(end);
            }
            self.tokens.push(token);
        }
    }

    /// Links the pair of tokens that ends at a position, all before are linked.
    fn link(&mut self, end: usize) {
        let before = match self.bucket(end) {
            Some(bucket) => mem::replace(&mut self.last[bucket], end as u32),
            None => NONE,
        };
        self.before.push(before);
    }

    /// Where the pair of tokens that ends at a position belongs, if there are two.
    fn bucket(&self, end: usize) -> Option<usize> {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio: TAOCP 3, 6.4
        let pair = self.tokens.get(end.checked_sub(1)?..=end)?;
        let hash = (u64::from(pair[0]) << 32 | u64::from(pair[1])).wrapping_mul(GOLDEN) >> 32;
        Some(hash as usize & (self.last.len() - 1))
    }

    /// The latest of the earlier places that the longest match of the last tokens ends at, and its length.
    fn longest_match(&self) -> Option<(usize, usize)> {
        let end = self.tokens.len().checked_sub(1)?;
        let mut place = self.last[self.bucket(end)?];
        let mut longest = (0, MIN_MATCH - 1);
        for _ in 0..MAX_PLACES {
            if place == NONE || longest.1 == MAX_MATCH {
                break;
            }
            let here = self.tokens[..=end].iter().rev();
            let there = self.tokens[..=place as usize].iter().rev();
            let len = here.zip(there).take(MAX_MATCH).take_while(|(a, b)| a == b).count();
            if len > longest.1 {
                longest = (place as usize, len);
            }
            place = self.before[place as usize];
        }
        (longest.1 >= MIN_MATCH).then_some(longest)
    }

    /// What followed a position, and where that reaches the end, what follows if it goes on like that.
    fn continue_from(&self, place: usize, n: usize, guesses: &mut Vec<u32>) {
        let period = self.tokens.len() - 1 - place;
        guesses.extend((0..n).map(|i| self.tokens[place + 1 + i % period]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses(index: &mut Index, tokens: &[u32], n: usize) -> (Vec<u32>, usize) {
        index.follow(tokens);
        let mut guesses = Vec::new();
        let Some((place, len)) = index.longest_match() else { return (guesses, 0) };
        index.continue_from(place, n, &mut guesses);
        (guesses, len)
    }

    #[test]
    fn what_followed_the_longest_match_is_guessed() {
        let mut index = Index::new(100).unwrap();
        assert_eq!(guesses(&mut index, &[], 3), (vec![], 0));
        assert_eq!(guesses(&mut index, &[1], 3), (vec![], 0));
        assert_eq!(guesses(&mut index, &[1, 2, 3, 4], 3), (vec![], 0));
        // 2 3 came before; so did 1 2 3, and what followed that counts for more than what came later.
        assert_eq!(guesses(&mut index, &[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 2), (vec![4, 9], 3));
        // Of equals the latest.
        assert_eq!(guesses(&mut index, &[7, 8, 1, 7, 8, 2, 7, 8], 1), (vec![2], 2));
        // What goes on is taken in, what is another sequence is not mixed up with it.
        assert_eq!(guesses(&mut index, &[7, 8, 1, 7, 8, 2, 7, 8, 1, 7, 8], 2), (vec![2, 7], 5));
        assert_eq!(guesses(&mut index, &[7, 8], 2), (vec![], 0));
        // A repetition goes on.
        assert_eq!(guesses(&mut index, &[5, 6, 5, 6], 5), (vec![5, 6, 5, 6, 5], 2));
        assert_eq!(guesses(&mut index, &[3; 20], 4), (vec![3; 4], 19));
    }

    #[test]
    fn what_is_found_is_what_a_search_of_all_places_finds() {
        let mut random = 1u32;
        for n_values in [2, 3, 20] {
            let mut index = Index::new(400).unwrap();
            let mut tokens = Vec::new();
            for _ in 0..400 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                tokens.push((random >> 16) % n_values);
                index.follow(&tokens);
                let end = tokens.len() - 1;
                let len =
                    |place: usize| (0..=place).take_while(|i| tokens[place - i] == tokens[end - i]).count();
                let best = (0..end).map(len).max().filter(|len| *len >= MIN_MATCH);
                let found = index.longest_match();
                if let Some((place, found)) = found {
                    assert_eq!(found, len(place).min(MAX_MATCH));
                }
                // With two values, no few places are all.
                if n_values == 20 {
                    assert_eq!(found.map(|(_, len)| len), best);
                } else {
                    assert_eq!(found.is_some(), best.is_some());
                }
            }
        }
    }
}
