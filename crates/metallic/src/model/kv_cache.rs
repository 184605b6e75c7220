//! Which page holds which positions of which sequence: integers only.
//!
//! A page holds the keys and values of [`PAGE_LEN`] consecutive positions of one sequence, in every layer.
//! The memory itself belongs to the backend; the pages here are indices into it.

use crate::error::{Error, Result};

/// Positions in a page: small enough to waste little, large enough that attention reads long runs.
pub(crate) const PAGE_LEN: usize = 256;

/// One sequence of tokens whose keys and values are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(usize);

/// The pages of every sequence.
pub(crate) struct PageTable {
    n_pages: usize,
    free: Vec<u32>,
    sequences: Vec<Option<Vec<u32>>>,
}

impl PageTable {
    pub(crate) fn new(n_pages: usize) -> Self {
        let free = (0..n_pages).rev().filter_map(|page| u32::try_from(page).ok()).collect();
        Self { n_pages, free, sequences: Vec::new() }
    }

    /// A sequence without pages.
    pub(crate) fn create(&mut self) -> SequenceId {
        let unused = self.sequences.iter().position(Option::is_none);
        let index = unused.unwrap_or_else(|| {
            self.sequences.push(None);
            self.sequences.len() - 1
        });
        // As many as it may ever have, so that the token loop allocates nothing.
        self.sequences[index] = Some(Vec::with_capacity(self.n_pages));
        SequenceId(index)
    }

    /// Makes room for positions up to `end`; takes nothing if there is not enough for all.
    pub(crate) fn reserve(&mut self, id: SequenceId, end: usize) -> Result<()> {
        let (n_pages, wanted) = (self.n_pages, end.div_ceil(PAGE_LEN));
        let pages = self.sequences[id.0].get_or_insert_default();
        let missing = wanted.saturating_sub(pages.len());
        if missing > self.free.len() {
            return Err(Error::CacheFull { n_pages, page_len: PAGE_LEN });
        }
        pages.extend(self.free.drain(self.free.len() - missing..).rev());
        Ok(())
    }

    /// Gives back the pages that hold no position below `len`.
    pub(crate) fn truncate(&mut self, id: SequenceId, len: usize) {
        if let Some(pages) = &mut self.sequences[id.0] {
            let kept = len.div_ceil(PAGE_LEN).min(pages.len());
            self.free.extend(pages.drain(kept..).rev());
        }
    }

    /// Gives back all pages, and the id.
    pub(crate) fn release(&mut self, id: SequenceId) {
        self.truncate(id, 0);
        self.sequences[id.0] = None;
    }

    /// Number of a sequence: the least that is free when it is created.
    pub(crate) fn slot(&self, id: SequenceId) -> usize {
        id.0
    }

    /// The pages of a sequence, in order of position.
    pub(crate) fn pages(&self, id: SequenceId) -> &[u32] {
        self.sequences[id.0].as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_never_shared_and_all_come_back() {
        let mut table = PageTable::new(5);
        let (a, b) = (table.create(), table.create());
        table.reserve(a, PAGE_LEN + 1).unwrap();
        table.reserve(b, 3 * PAGE_LEN).unwrap();
        let mut all = [table.pages(a), table.pages(b)].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);

        table.truncate(b, PAGE_LEN);
        assert_eq!((table.pages(b).len(), table.free.len()), (1, 2));
        table.release(a);
        table.release(b);
        assert_eq!(table.free.len(), 5);
        assert_eq!(table.create(), a, "ids are used again");
    }

    #[test]
    fn a_full_cache_refuses_and_takes_nothing() {
        let mut table = PageTable::new(2);
        let (a, b) = (table.create(), table.create());
        table.reserve(a, 1).unwrap();
        let error = table.reserve(b, 2 * PAGE_LEN).unwrap_err();
        assert!(matches!(error, Error::CacheFull { n_pages: 2, .. }));
        assert!(table.pages(b).is_empty());
        table.reserve(b, PAGE_LEN).unwrap();
    }

    #[test]
    fn reserving_keeps_the_pages_a_sequence_has() {
        let mut table = PageTable::new(4);
        let id = table.create();
        table.reserve(id, 2 * PAGE_LEN).unwrap();
        let before = table.pages(id).to_vec();
        table.reserve(id, 3 * PAGE_LEN).unwrap();
        table.reserve(id, 1).unwrap();
        assert_eq!(table.pages(id)[..2], before);
        assert_eq!(table.pages(id).len(), 3);
    }
}
