//! Which page holds which positions of which sequences: integers only.
//!
//! A page holds the keys and values of [`PAGE_LEN`] consecutive positions, in every layer. Sequences that begin alike may
//! share pages: whoever writes to one gets a page of its own first. The memory itself belongs to the backend; the pages
//! here are indices into it.

use std::ops::Range;

use crate::error::{Error, Result};

/// Positions in a page: small enough to waste little, large enough that attention reads long runs.
pub(crate) const PAGE_LEN: usize = 256;

/// One sequence of tokens whose keys and values are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId(usize);

/// A page whose contents another needs before it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageCopy {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// The pages of every sequence.
pub(crate) struct PageTable {
    free: Vec<u32>,
    /// How many sequences have each page.
    n_users: Vec<u32>,
    sequences: Vec<Option<Vec<u32>>>,
}

impl PageTable {
    pub(crate) fn new(n_pages: usize) -> Self {
        let free = (0..n_pages).rev().filter_map(|page| u32::try_from(page).ok()).collect();
        Self { free, n_users: vec![0; n_pages], sequences: Vec::new() }
    }

    /// A sequence without pages.
    pub(crate) fn create(&mut self) -> SequenceId {
        let unused = self.sequences.iter().position(Option::is_none);
        let index = unused.unwrap_or_else(|| {
            self.sequences.push(None);
            self.sequences.len() - 1
        });
        // As many as it may ever have, so that the token loop allocates nothing.
        self.sequences[index] = Some(Vec::with_capacity(self.n_users.len()));
        SequenceId(index)
    }

    /// Has one sequence begin with the first `len` positions of another, in the same pages, in place of what it has.
    ///
    /// # Panics
    /// If the other has not so many.
    pub(crate) fn share(&mut self, from: SequenceId, to: SequenceId, len: usize) {
        let mut pages = self.sequences[to.0].take().unwrap_or_default();
        let shared = &self.pages(from)[..len.div_ceil(PAGE_LEN)];
        let old = pages.len();
        pages.extend(shared);
        pages[old..].iter().for_each(|&page| self.n_users[page as usize] += 1);
        pages.drain(..old).for_each(|page| self.leave(page));
        self.sequences[to.0] = Some(pages);
    }

    /// Makes room for positions that are written next, in pages that no other sequence has. Where others have the page of what
    /// is just before them, too, that is to be copied first. Takes nothing if there is not enough for all.
    pub(crate) fn reserve(&mut self, id: SequenceId, written: Range<usize>) -> Result<Option<PageCopy>> {
        let Some(n_left) = self.free.len().checked_sub(self.n_needed(id, &written)) else {
            return Err(Error::CacheFull { n_pages: self.n_users.len(), page_len: PAGE_LEN });
        };
        let Self { free, n_users, sequences } = self;
        let mut own = free.drain(n_left..).rev();
        let pages = sequences[id.0].get_or_insert_default();
        let (first, wanted) = (written.start / PAGE_LEN, written.end.div_ceil(PAGE_LEN));
        let mut copy = None;
        for (i, page) in pages.iter_mut().enumerate().take(wanted).skip(first) {
            if n_users[*page as usize] > 1
                && let Some(to) = own.next()
            {
                if i == first && !written.start.is_multiple_of(PAGE_LEN) {
                    copy = Some(PageCopy { from: *page, to });
                }
                n_users[*page as usize] -= 1;
                n_users[to as usize] = 1;
                *page = to;
            }
        }
        pages.extend(own.inspect(|page| n_users[*page as usize] = 1));
        Ok(copy)
    }

    /// Free pages that this takes.
    pub(crate) fn n_needed(&self, id: SequenceId, written: &Range<usize>) -> usize {
        let (first, wanted) = (written.start / PAGE_LEN, written.end.div_ceil(PAGE_LEN));
        let pages = self.pages(id);
        let is_shared = |page: &&u32| self.n_users[**page as usize] > 1;
        let n_shared = pages.iter().take(wanted).skip(first).filter(is_shared).count();
        n_shared + wanted.saturating_sub(pages.len())
    }

    /// Pages that no sequence has.
    pub(crate) fn n_free(&self) -> usize {
        self.free.len()
    }

    /// Gives back the pages that hold no position below `len`.
    pub(crate) fn truncate(&mut self, id: SequenceId, len: usize) {
        if let Some(mut pages) = self.sequences[id.0].take() {
            let kept = len.div_ceil(PAGE_LEN).min(pages.len());
            pages.drain(kept..).rev().for_each(|page| self.leave(page));
            self.sequences[id.0] = Some(pages);
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

    /// One sequence less has a page.
    fn leave(&mut self, page: u32) {
        let n_users = &mut self.n_users[page as usize];
        *n_users -= 1;
        if *n_users == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_belong_to_one_sequence_and_all_come_back() {
        let mut table = PageTable::new(5);
        let (a, b) = (table.create(), table.create());
        table.reserve(a, 0..PAGE_LEN + 1).unwrap();
        table.reserve(b, 0..3 * PAGE_LEN).unwrap();
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
        table.reserve(a, 0..1).unwrap();
        let error = table.reserve(b, 0..2 * PAGE_LEN).unwrap_err();
        assert!(matches!(error, Error::CacheFull { n_pages: 2, .. }));
        assert!(table.pages(b).is_empty());
        table.reserve(b, 0..PAGE_LEN).unwrap();
    }

    #[test]
    fn reserving_keeps_the_pages_a_sequence_has() {
        let mut table = PageTable::new(4);
        let id = table.create();
        table.reserve(id, 0..2 * PAGE_LEN).unwrap();
        let before = table.pages(id).to_vec();
        table.reserve(id, 2 * PAGE_LEN..3 * PAGE_LEN).unwrap();
        table.reserve(id, 0..1).unwrap();
        assert_eq!(table.pages(id)[..2], before);
        assert_eq!(table.pages(id).len(), 3);
    }

    #[test]
    fn who_writes_to_a_shared_page_gets_its_own() {
        let mut table = PageTable::new(6);
        let (a, b) = (table.create(), table.create());
        table.reserve(a, 0..2 * PAGE_LEN + 9).unwrap();
        table.share(a, b, PAGE_LEN + 3);
        assert_eq!(table.pages(b), &table.pages(a)[..2]);
        assert_eq!(table.n_free(), 3);

        // Within the second page: what is before stays, and is copied.
        let of_a = table.pages(a).to_vec();
        let copy = table.reserve(b, PAGE_LEN + 3..PAGE_LEN + 4).unwrap().expect("a copy");
        assert_eq!((copy.from, copy.to), (of_a[1], table.pages(b)[1]));
        assert_eq!(table.pages(a), of_a);
        assert_eq!(table.pages(b)[0], of_a[0]);
        assert_eq!(table.reserve(b, PAGE_LEN + 4..PAGE_LEN + 5).unwrap(), None, "now it is its own");

        // From its beginning: there is nothing to copy, nor for the one who is left alone with it.
        assert_eq!(table.reserve(a, 0..1).unwrap(), None);
        assert_ne!(table.pages(a)[0], of_a[0]);
        assert_eq!(table.reserve(b, 5..6).unwrap(), None);
        assert_eq!(table.pages(b)[0], of_a[0]);

        table.release(a);
        table.release(b);
        assert_eq!(table.n_free(), 6);
    }

    #[test]
    fn pages_that_are_shared_in_place_of_others_stay_until_the_last_has_left() {
        let mut table = PageTable::new(4);
        let (a, b) = (table.create(), table.create());
        table.reserve(a, 0..2 * PAGE_LEN).unwrap();
        table.reserve(b, 0..PAGE_LEN).unwrap();
        table.share(a, b, PAGE_LEN);
        assert_eq!(table.n_free(), 2, "what it had before came back");
        table.share(a, b, 2 * PAGE_LEN);
        table.release(a);
        assert_eq!(table.n_free(), 2);
        // No page is left for a copy: it must not be begun.
        let (c, d) = (table.create(), table.create());
        table.share(b, c, 2 * PAGE_LEN - 1);
        table.reserve(d, 0..2 * PAGE_LEN).unwrap();
        let before = table.pages(c).to_vec();
        assert!(table.reserve(c, 2 * PAGE_LEN - 1..2 * PAGE_LEN).is_err());
        assert_eq!(table.pages(c), before);
        table.release(b);
        assert_eq!(table.reserve(c, 2 * PAGE_LEN - 1..2 * PAGE_LEN).unwrap(), None);
        table.release(c);
        assert_eq!(table.n_free(), 2);
    }
}
