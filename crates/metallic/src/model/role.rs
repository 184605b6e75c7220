//! What a row of a batch is: it decides how products are summed, and so the bits of what comes of it.
//!
//! Two ways of multiplying add floats in different orders. A row's way must not depend on what else is in its batch, nor on
//! where a budget cuts a prompt into batches: it depends on what the request alone says.

use std::cmp::Ordering;

/// Rows of one prompt from which on it is faster to expand weights for all of them than to multiply each by itself: more than
/// the kernels of single rows take at once.
const MIN_GEMM_ROWS: usize = 9;

/// What the tokens of a [`Piece`](super::Piece) are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An answer's, which come one at a time: they are multiplied one by one (GEMV), also where several sequences share a
    /// batch.
    Generated,
    /// Those of a prompt, which may come in several batches: long prompts are multiplied in tiles (GEMM), short ones as
    /// answers are.
    Prompt {
        /// Tokens of the whole prompt, those before and after the piece included.
        len: usize,
    },
}

impl Role {
    /// Whether it is multiplied in tiles with matrices that see `n_used` of `n_all` rows, as experts do.
    pub(crate) fn takes_gemm(self, (n_used, n_all): (usize, usize)) -> bool {
        match self {
            Role::Generated => false,
            Role::Prompt { len } => len.saturating_mul(n_used) >= n_all.saturating_mul(MIN_GEMM_ROWS),
        }
    }

    /// The order of rows in a batch, in which those that are multiplied one by one come first, whichever matrix it is.
    pub(super) fn order(self, other: Self) -> Ordering {
        let len = |role| if let Role::Prompt { len } = role { len } else { 0 };
        len(self).cmp(&len(other))
    }
}

/// As what the tokens of a sequence were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadAs(Vec<(usize, Role)>);

impl ReadAs {
    /// Of runs of one role in order of position: the role, and where its tokens end.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (usize, Role)> {
        self.0.iter().copied()
    }

    /// Notes what the tokens up to `end` are, that follow those before.
    pub(crate) fn push(&mut self, end: usize, role: Role) {
        match self.0.last_mut() {
            Some((last_end, last)) if *last == role => *last_end = end,
            _ => self.0.push((end, role)),
        }
    }

    /// Forgets all tokens but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        let n_whole = self.0.partition_point(|&(end, _)| end <= len);
        let cut = self.0.get(n_whole).map(|&(_, role)| role);
        self.0.truncate(n_whole);
        if let Some(role) = cut
            && self.0.last().map_or(0, |&(end, _)| end) < len
        {
            self.0.push((len, role));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_role_grow_and_are_cut() {
        let prompt = Role::Prompt { len: 9 };
        let mut read_as = ReadAs::default();
        for (end, role) in [(4, prompt), (9, prompt), (10, Role::Generated), (11, Role::Generated)] {
            read_as.push(end, role);
        }
        assert_eq!(read_as.0, [(9, prompt), (11, Role::Generated)]);
        for (len, runs) in [
            (20, &[(9, prompt), (11, Role::Generated)][..]),
            (10, &[(9, prompt), (10, Role::Generated)]),
            (9, &[(9, prompt)]),
            (3, &[(3, prompt)]),
            (0, &[]),
        ] {
            read_as.truncate(len);
            assert_eq!(read_as.0, runs, "{len}");
        }
    }

    #[test]
    fn long_prompts_take_tiles_where_enough_of_their_rows_meet_a_matrix() {
        let prompt = |len| Role::Prompt { len };
        assert!(!Role::Generated.takes_gemm((1, 1)));
        assert!(!prompt(8).takes_gemm((1, 1)) && prompt(9).takes_gemm((1, 1)));
        assert!(!prompt(143).takes_gemm((2, 32)) && prompt(144).takes_gemm((2, 32)));
        assert!(prompt(usize::MAX).takes_gemm((8, 128)));
    }

    #[test]
    fn whatever_the_matrix_those_in_tiles_come_last() {
        let mut roles =
            [Role::Prompt { len: 300 }, Role::Generated, Role::Prompt { len: 20 }, Role::Generated];
        roles.sort_by(|a, b| a.order(*b));
        for share in [(1, 1), (2, 32), (1, 8)] {
            assert!(roles.is_sorted_by_key(|role| role.takes_gemm(share)));
        }
    }
}
