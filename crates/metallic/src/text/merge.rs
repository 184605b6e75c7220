//! The merging loop that all byte-pair vocabularies share.
//!
//! A word starts as one symbol for each byte or character. Of all adjacent pairs that the vocabulary can merge,
//! the one of lowest rank (the leftmost of equals) becomes one symbol, until none is left. Pairs wait in a
//! heap, and symbols are linked, so a word of n symbols takes O(n log n) however hostile it is. A pair in the
//! heap whose symbols have changed since is recognised by its length, and dropped.
//!
//! Words recur: their ids are copied from where the same word was last encoded in the same text.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use super::error::TokenizerError;
use super::vocabulary::NO_TOKEN;

/// Longer words are not looked for among earlier ones: they seldom recur, and hashing them costs.
const MAX_CACHED_WORD_BYTES: usize = 64;

/// What a vocabulary says about single symbols and pairs of them. Ids are [`NO_TOKEN`] where there is none.
pub(super) trait MergeRules {
    /// The length of the symbol that `rest` starts with, in bytes (`rest` is not empty), and its id.
    fn first_symbol(&self, rest: &[u8]) -> (usize, u32);

    /// The rank of the pair, and the id that it becomes, if it can be merged. `joined` are its bytes.
    fn merge(&self, left: u32, right: u32, joined: &[u8]) -> Option<(u32, u32)>;

    /// Whether a whole word is a token, before any merging.
    fn whole_word(&self, word: &[u8]) -> Option<u32>;

    /// Appends what stands for a symbol that could not be merged into a token.
    fn fall_back(&self, symbol: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError>;
}

/// Encodes the words of one text.
pub(super) struct Merger<R> {
    rules: R,
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Pair>>,
    seen: WordCache,
}

/// Where in the output the ids of a word are. Between calls, that output may only grow.
#[derive(Default)]
pub(super) struct WordCache {
    /// Start and end.
    places: HashMap<Box<[u8]>, (usize, usize)>,
}

impl WordCache {
    /// Appends the ids of a word if it was seen before.
    pub(super) fn repeat(&self, word: &[u8], out: &mut Vec<u32>) -> bool {
        let place = self.places.get(word);
        if let Some(&(start, end)) = place {
            out.extend_from_within(start..end);
        }
        place.is_some()
    }

    /// Keeps that the ids of a word are those from `start` on.
    pub(super) fn remember(&mut self, word: &[u8], start: usize, out: &[u32]) {
        if word.len() <= MAX_CACHED_WORD_BYTES {
            self.places.insert(word.into(), (start, out.len()));
        }
    }
}

/// A part of a word that is not merged further so far. Links are indices; `END` is none.
struct Symbol {
    start: u32,
    /// 0 once this symbol has become part of its left neighbour.
    len: u32,
    previous: u32,
    next: u32,
    id: u32,
}

const END: u32 = u32::MAX;

/// A pair that can be merged. Ordered by rank, then from the left.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    /// Rank and, in the lower half, index of the left symbol: one number compares faster than two.
    place: u64,
    len: u32,
    id: u32,
}

impl Pair {
    fn new(rank: u32, left: u32, len: u32, id: u32) -> Self {
        Pair { place: u64::from(rank) << 32 | u64::from(left), len, id }
    }

    fn left(&self) -> u32 {
        self.place as u32
    }
}

impl<R: MergeRules> Merger<R> {
    pub(super) fn new(rules: R) -> Self {
        Merger { rules, symbols: Vec::new(), queue: BinaryHeap::new(), seen: WordCache::default() }
    }

    /// Appends the ids of a word, which must be shorter than 2³² bytes, to `out`. Between calls, `out` may
    /// only grow.
    pub(super) fn encode(&mut self, word: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        if self.seen.repeat(word, out) {
            return Ok(());
        }
        let start = out.len();
        match self.rules.whole_word(word) {
            Some(id) => out.push(id),
            None => self.merge(word, out)?,
        }
        self.seen.remember(word, start, out);
        Ok(())
    }

    fn merge(&mut self, word: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        self.split(word);
        for left in 1..self.symbols.len() {
            self.enqueue(word, left as u32 - 1, left as u32);
        }
        while let Some(Reverse(pair)) = self.queue.pop() {
            self.join(word, &pair);
        }
        let mut at = if self.symbols.is_empty() { END } else { 0 };
        while let Some(symbol) = self.symbols.get(at as usize) {
            if symbol.id == NO_TOKEN {
                self.rules.fall_back(symbol.bytes(word), out)?;
            } else {
                out.push(symbol.id);
            }
            at = symbol.next;
        }
        Ok(())
    }

    fn split(&mut self, word: &[u8]) {
        self.symbols.clear();
        let mut start = 0;
        while start < word.len() {
            let (len, id) = self.rules.first_symbol(&word[start..]);
            let at = self.symbols.len() as u32;
            let next = if start + len < word.len() { at + 1 } else { END };
            let previous = at.wrapping_sub(1); // END for the first
            self.symbols.push(Symbol { start: start as u32, len: len as u32, previous, next, id });
            start += len;
        }
    }

    fn enqueue(&mut self, word: &[u8], left: u32, right: u32) {
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        let len = a.len + b.len;
        let joined = &word[a.start as usize..(a.start + len) as usize];
        if let Some((rank, id)) = self.rules.merge(a.id, b.id, joined) {
            self.queue.push(Reverse(Pair::new(rank, left, len, id)));
        }
    }

    fn join(&mut self, word: &[u8], pair: &Pair) {
        let left = &self.symbols[pair.left() as usize];
        let Some(right) = self.symbols.get(left.next as usize) else { return };
        // Symbols only grow. So if the pair is as long as it was, it is the same pair.
        if left.len == 0 || left.len + right.len != pair.len {
            return;
        }
        let (previous, removed, next) = (left.previous, left.next, right.next);
        self.symbols[removed as usize].len = 0;
        let left = &mut self.symbols[pair.left() as usize];
        (left.len, left.id, left.next) = (pair.len, pair.id, next);
        if next != END {
            self.symbols[next as usize].previous = pair.left();
            self.enqueue(word, pair.left(), next);
        }
        if previous != END {
            self.enqueue(word, previous, pair.left());
        }
    }
}

impl Symbol {
    fn bytes<'w>(&self, word: &'w [u8]) -> &'w [u8] {
        &word[self.start as usize..(self.start + self.len) as usize]
    }
}
