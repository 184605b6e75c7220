//! Which tokens go into the next forward pass, and which cached sequence serves a new request.

use smallvec::SmallVec;

use crate::model::Role;

/// One item for each slot. With more slots than it has room for in place, a step allocates.
pub(super) type PerSlot<T> = SmallVec<[T; 8]>;

/// What a slot has to run next: tokens of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) n_tokens: usize,
    pub(super) role: Role,
}

/// A slot's share of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) slot: usize,
    pub(super) n_tokens: usize,
    pub(super) role: Role,
}

/// Divides a batch of `n_batch` rows among slots with tokens to run.
///
/// Answers that wait for one token come first, so that reading much does not stop those that are under way. What is left goes
/// to prompts, and to answers that are read again, in order of slots.
pub(super) fn divide_batch(pending: &[Option<Pending>], n_batch: usize) -> PerSlot<Share> {
    let (mut left, mut shares) = (n_batch, PerSlot::new());
    let pending = || pending.iter().enumerate().filter_map(|(slot, pending)| Some((slot, (*pending)?)));
    let is_next = |pending: &Pending| pending.role == Role::Generated && pending.n_tokens == 1;
    let answers = pending().filter(|(_, pending)| is_next(pending));
    let others = pending().filter(|(_, pending)| !is_next(pending));
    for (slot, Pending { n_tokens, role }) in answers.chain(others) {
        let n_tokens = n_tokens.min(left);
        if n_tokens > 0 {
            left -= n_tokens;
            shares.push(Share { slot, n_tokens, role });
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
        let prompt = |len| Role::Prompt { len };
        let pending = |n_tokens, role| Some(Pending { n_tokens, role });
        let share = |slot, n_tokens, role| Share { slot, n_tokens, role };
        let answer = pending(1, Role::Generated);
        assert_eq!(
            divide_batch(&[pending(100, prompt(100)), answer, None, answer], 64)[..],
            [share(0, 62, prompt(100)), share(1, 1, Role::Generated), share(3, 1, Role::Generated)]
        );
        let prompts = [pending(40, prompt(50)), pending(40, prompt(40))];
        assert_eq!(divide_batch(&prompts, 64)[..], [share(0, 40, prompt(50)), share(1, 24, prompt(40))]);
        let again = pending(100, Role::Generated);
        let shares = divide_batch(&[again, answer], 64);
        assert_eq!(shares[..], [share(0, 63, Role::Generated), share(1, 1, Role::Generated)]);
        // The last token of a prompt is no answer.
        let shares = divide_batch(&[pending(1, prompt(9)), answer, answer], 2);
        assert_eq!(shares[..], [share(1, 1, Role::Generated), share(2, 1, Role::Generated)]);
        assert_eq!(divide_batch(&[None, None], 8)[..], []);
    }
}
