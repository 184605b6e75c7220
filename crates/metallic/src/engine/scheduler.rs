//! Which tokens go into the next forward pass, and which cached sequence serves a new request.

use smallvec::SmallVec;

/// One item for each slot. With more slots than it has room for in place, a step allocates.
pub(super) type PerSlot<T> = SmallVec<[T; 8]>;

/// A slot's share of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) slot: usize,
    pub(super) n_tokens: usize,
}

/// Divides a batch of `n_batch` rows among slots with `n_pending[slot]` tokens to run.
///
/// Sequences that wait for one token come first, so that reading a long prompt does not stop the answers
/// that are under way; what is left goes to prompts, in order of slots.
pub(super) fn divide_batch(n_pending: &[usize], n_batch: usize) -> PerSlot<Share> {
    let (mut left, mut shares) = (n_batch, PerSlot::new());
    let decoding = n_pending.iter().enumerate().filter(|(_, n)| **n == 1);
    let reading = n_pending.iter().enumerate().filter(|(_, n)| **n > 1);
    for (slot, &n) in decoding.chain(reading) {
        let n_tokens = n.min(left);
        if n_tokens > 0 {
            left -= n_tokens;
            shares.push(Share { slot, n_tokens });
        }
    }
    shares.sort_unstable_by_key(|share| share.slot);
    shares
}

/// Tokens that two sequences begin with.
pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_under_way_come_before_prompts() {
        let share = |slot, n_tokens| Share { slot, n_tokens };
        assert_eq!(divide_batch(&[100, 1, 0, 1], 64)[..], [share(0, 62), share(1, 1), share(3, 1)]);
        assert_eq!(divide_batch(&[40, 40], 64)[..], [share(0, 40), share(1, 24)]);
        assert_eq!(divide_batch(&[1, 1, 1], 2)[..], [share(0, 1), share(1, 1)]);
        assert_eq!(divide_batch(&[0, 0], 8)[..], []);
    }
}
