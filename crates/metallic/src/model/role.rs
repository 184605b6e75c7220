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

#[cfg(test)]
mod tests {
    use super::*;

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
