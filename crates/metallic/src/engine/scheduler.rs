//! Which tokens go into the next forward pass.

use std::time::Duration;

use smallvec::SmallVec;

use crate::model::Role;

/// One item for each slot. With more slots than it has room for in place, a step allocates.
pub(super) type PerSlot<T> = SmallVec<[T; 8]>;

/// What a slot has to run next: tokens of one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Guesses included.
    pub(super) n_tokens: usize,
    pub(super) n_guesses: usize,
    pub(super) role: Role,
}

/// A slot's share of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) slot: usize,
    /// Guesses included.
    pub(super) n_tokens: usize,
    pub(super) n_guesses: usize,
    pub(super) role: Role,
}

impl Pending {
    /// Whether it is an answer that waits for its next token.
    pub(super) fn is_next(&self) -> bool {
        self.role == Role::Generated && self.n_tokens == 1 + self.n_guesses
    }
}

impl Share {
    /// The same.
    fn is_next(&self) -> bool {
        self.role == Role::Generated && self.n_tokens == 1 + self.n_guesses
    }
}

/// Rows of prompts beside answers at least: fewer take hardly less time.
const MIN_ROWS: usize = 16;

/// And before anything is measured.
const FIRST_ROWS: f64 = 64.0;

/// Time that rows of prompts are to add to a pass, of what its answers take alone: less than once, for what can't be foreseen.
const ADDED: f64 = 0.8;

/// The same on average: where the fewest rows add more, they wait for passes of answers alone.
const ADDED_ON_AVERAGE: f64 = 0.9;

/// What a further row of answers is taken to add to the time of the first, before that is measured.
const ROW_SHARE: f64 = 0.2;

/// Passes with prompts after which the time of answers is measured anew, in a pass of answers alone.
const MAX_MIXED: usize = 64;

/// The same where it is not known at all.
const MAX_MIXED_UNKNOWN: usize = 4;

/// Passes of which the mean is kept: of more, those long ago count less.
const MAX_PASSES: u8 = 8;

/// How long passes of some rows took.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Seconds, on average.
    time: f64,
    n_passes: u8,
}

/// Divides batches between answers and prompts, by what was measured of passes: so that reading prompts at most doubles the time
/// between an answer's tokens, on average where even few rows take long, and no prompt waits for another to be read to its end.
pub(super) struct Pace {
    /// Seconds of a pass of answers alone, by how many rows they have.
    alone: Vec<Option<Measured>>,
    /// Rows of prompts that take as long as they may.
    rows: f64,
    /// Passes since the last of answers alone.
    n_mixed: usize,
    /// Seconds that prompts have added beyond what they may.
    debt: f64,
    /// The slot whose prompt is read first.
    turn: usize,
}

impl Pace {
    /// For answers of at most so many rows together.
    pub(super) fn new(n_rows: usize) -> Self {
        Self { alone: vec![None; n_rows + 1], rows: FIRST_ROWS, n_mixed: 0, debt: 0.0, turn: 0 }
    }

    /// Divides a batch of `n_batch` rows among slots with tokens to run.
    ///
    /// Answers that wait for one token come first; with their guesses they have to fit. What may be added goes to prompts, and to
    /// answers that are read again, in turns.
    pub(super) fn divide_batch(&mut self, pending: &[Option<Pending>], n_batch: usize) -> PerSlot<Share> {
        let slots = || (0..pending.len()).filter_map(|slot| Some((slot, pending[slot]?)));
        let n_prompts = slots().filter(|(_, pending)| !pending.is_next()).count();
        let share = |(slot, Pending { n_tokens, n_guesses, role })| Share { slot, n_tokens, n_guesses, role };
        let mut n_rows = 0;
        let mut shares = PerSlot::new();
        for (slot, pending) in slots().filter(|(_, pending)| pending.is_next()) {
            if n_rows + pending.n_tokens > n_batch {
                break;
            }
            n_rows += pending.n_tokens;
            shares.push(share((slot, pending)));
        }
        let mut left = self.prompt_rows(n_rows).min(n_batch - n_rows);
        let turn = self.turn % pending.len().max(1);
        let in_turn =
            slots().skip_while(|(slot, _)| *slot < turn).chain(slots().take_while(|(slot, _)| *slot < turn));
        for (slot, pending) in in_turn.filter(|(_, pending)| !pending.is_next()) {
            let n_tokens = pending.n_tokens.min(left);
            if n_tokens > 0 {
                left -= n_tokens;
                shares.push(share((slot, Pending { n_tokens, ..pending })));
                // With one prompt alone there are no turns.
                self.turn = if n_prompts > 1 { slot + 1 } else { slot };
            }
        }
        shares.sort_unstable_by_key(|share| share.slot);
        shares
    }

    /// Rows of prompts that may go beside so many rows of answers.
    fn prompt_rows(&self, n_rows: usize) -> usize {
        if n_rows == 0 {
            return usize::MAX;
        }
        let most = if self.time_alone(n_rows).is_some() { MAX_MIXED } else { MAX_MIXED_UNKNOWN };
        if self.n_mixed >= most || self.debt > 0.0 { 0 } else { (self.rows as usize).max(MIN_ROWS) }
    }

    /// Seconds of a pass of so many rows of answers alone, or of fewer: rather too little.
    fn time_alone(&self, n_rows: usize) -> Option<f64> {
        let fewer = self.alone[..=n_rows].iter().rev().find_map(|measured| Some((*measured)?.time));
        let more = || {
            let mut more = self.measured().skip_while(|(n, _)| *n <= n_rows);
            more.next().map(|(n, Measured { time, .. })| time * n_rows as f64 / n as f64)
        };
        fewer.or_else(more)
    }

    /// The same as near as can be told, where it is known of any: on a line through those that were measured of about so many rows,
    /// since what a row adds is often less than one measurement differs from the next.
    pub(super) fn expected(&self, n_rows: usize) -> Option<f64> {
        let mut sums = [0.0; 5];
        for (n, Measured { time, n_passes }) in self.measured() {
            let doublings = (n_rows.max(1) as f64 / n as f64).log2();
            let weight = f64::from(n_passes) * (-doublings * doublings).exp2();
            let n = n as f64;
            let terms = [1.0, n, time, n * n, n * time];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += weight * term);
        }
        let [weight, n, time, nn, nt] = sums;
        if weight == 0.0 {
            return self.time_alone(n_rows);
        }
        let (mean_n, mean_time) = (n / weight, time / weight);
        let (variance, covariance) = (nn / weight - mean_n * mean_n, nt / weight - mean_n * mean_time);
        let is_known = variance > 0.01 * mean_n;
        let row = if is_known { (covariance / variance).max(0.0) } else { ROW_SHARE * mean_time / mean_n };
        Some((mean_time + row * (n_rows as f64 - mean_n)).max(0.0))
    }

    fn measured(&self) -> impl Iterator<Item = (usize, Measured)> {
        self.alone.iter().enumerate().filter_map(|(n, time)| Some((n, (*time)?)))
    }

    /// Learns from how long a pass took.
    pub(super) fn passed(&mut self, shares: &[Share], time: Duration) {
        let rows = |of_answers: bool| -> usize {
            shares.iter().filter(|share| share.is_next() == of_answers).map(|share| share.n_tokens).sum()
        };
        let (n_answers, n_rows) = (rows(true), rows(false));
        let time = time.as_secs_f64();
        if n_rows == 0 {
            let measured = self.alone[n_answers].get_or_insert(Measured { time, n_passes: 0 });
            measured.n_passes = (measured.n_passes + 1).min(MAX_PASSES);
            measured.time += (time - measured.time) / f64::from(measured.n_passes);
            self.n_mixed = 0;
            self.debt = (self.debt - ADDED_ON_AVERAGE * time).max(0.0);
        } else if n_answers == 0 {
            self.debt = 0.0;
        } else {
            self.n_mixed += 1;
            let Some(alone) = self.time_alone(n_answers) else { return };
            let added = (time - alone).max(f64::MIN_POSITIVE);
            // So much at most, as a pass that something else has held up is no prompt's fault.
            self.debt = (self.debt + added - ADDED_ON_AVERAGE * alone).clamp(0.0, 4.0 * alone);
            // The last rows of a prompt, where they are few, say little of many.
            if 2.0 * n_rows as f64 >= self.rows {
                let ratio = ADDED * alone / added;
                self.rows = (self.rows * ratio.clamp(0.7, 1.4)).clamp(MIN_ROWS as f64, 1e6);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(len: usize) -> Role {
        Role::Prompt { len }
    }

    fn pending(n_tokens: usize, role: Role) -> Option<Pending> {
        Some(Pending { n_tokens, n_guesses: 0, role })
    }

    fn share(slot: usize, n_tokens: usize, role: Role) -> Share {
        Share { slot, n_tokens, n_guesses: 0, role }
    }

    #[test]
    fn answers_under_way_come_before_prompts() {
        let divide = |pending: &[_], n_batch| Pace::new(pending.len()).divide_batch(pending, n_batch);
        let answer = pending(1, Role::Generated);
        assert_eq!(
            divide(&[pending(100, prompt(100)), answer, None, answer], 64)[..],
            [share(0, 62, prompt(100)), share(1, 1, Role::Generated), share(3, 1, Role::Generated)]
        );
        let prompts = [pending(40, prompt(50)), pending(40, prompt(40))];
        assert_eq!(divide(&prompts, 64)[..], [share(0, 40, prompt(50)), share(1, 24, prompt(40))]);
        let again = pending(100, Role::Generated);
        let shares = divide(&[again, answer], 64);
        assert_eq!(shares[..], [share(0, 63, Role::Generated), share(1, 1, Role::Generated)]);
        // The last token of a prompt is no answer.
        let shares = divide(&[pending(1, prompt(9)), answer, answer], 2);
        assert_eq!(shares[..], [share(1, 1, Role::Generated), share(2, 1, Role::Generated)]);
        assert_eq!(divide(&[None, None], 8)[..], []);
        assert_eq!(divide(&[], 8)[..], []);
    }

    #[test]
    fn prompts_take_turns() {
        let mut pace = Pace::new(3);
        let mut left = [100, 20, 90];
        let mut order = Vec::new();
        while left.iter().any(|n| *n > 0) {
            let waiting = left.map(|n| pending(n, prompt(100)).filter(|_| n > 0));
            let shares = pace.divide_batch(&waiting, 32);
            assert!(shares.iter().map(|share| share.n_tokens).sum::<usize>() <= 32);
            for Share { slot, n_tokens, .. } in shares {
                left[slot] -= n_tokens;
                order.push((slot, n_tokens));
            }
        }
        assert_eq!(order[..3], [(0, 32), (1, 20), (2, 12)], "the second and third share a pass");
        assert!(order[3..].iter().map(|(slot, _)| *slot).eq([0, 2, 0, 2, 0, 2]), "{order:?}");
    }

    /// Seconds of an answer, of a row, of a pass, and of a pass that has rows.
    type Costs = (f64, f64, f64, f64);

    /// A pass of a machine with these costs: what it takes, what its answers take, and how many rows it has.
    fn run(pace: &mut Pace, n_answers: usize, (answer, row, pass, prompts): Costs) -> (f64, f64, usize) {
        let mut waiting = vec![pending(1, Role::Generated); n_answers];
        waiting.push(pending(1_000_000, prompt(1_000_000)));
        let shares = pace.divide_batch(&waiting, 2048);
        let n_rows: usize =
            shares.iter().filter(|share| share.slot == n_answers).map(|share| share.n_tokens).sum();
        let alone = pass + answer * n_answers as f64;
        let time = alone + row * n_rows as f64 + if n_rows > 0 { prompts } else { 0.0 };
        pace.passed(&shares, Duration::from_secs_f64(time));
        (time, alone, n_rows)
    }

    #[test]
    fn rows_of_prompts_at_most_double_the_time_of_answers() {
        // A small model, a large one, one whose weights are swapped in, and two that read prompts slowly.
        for costs in [
            (1e-3, 2e-4, 1e-3, 1e-3),
            (1e-2, 4e-3, 0.1, 0.0),
            (1e-2, 4e-3, 10.0, 0.1),
            (1e-3, 1e-3, 1e-2, 0.0),
            (1e-3, 2e-4, 1e-3, 1e-2),
        ] {
            let mut pace = Pace::new(9);
            let passes: Vec<_> = (0..300).map(|_| run(&mut pace, 8, costs)).collect();
            for (time, alone, n_rows) in &passes[50..] {
                assert!(*time <= 2.0 * alone || *n_rows <= MIN_ROWS, "{costs:?}: {time} for {alone}");
            }
            let sum =
                |(all, of_answers), (time, alone, _): &(f64, f64, usize)| (all + time, of_answers + alone);
            let (time, alone) = passes[50..].iter().fold((0.0, 0.0), sum);
            assert!(time <= 2.0 * alone, "{costs:?}: {time} for {alone}");
            // And it is made use of.
            assert!(time >= 1.5 * alone, "{costs:?}: {time} for {alone}");
        }
    }

    /// Of 16 rows that take 1 + 16 × 0.9 ms a further one costs 6 %, and a measurement is wrong by 5 %.
    #[test]
    fn what_a_row_adds_is_found_among_measurements_that_differ_more() {
        let mut pace = Pace::new(32);
        let mut wrong = [-0.05, 0.02, 0.05, -0.01, 0.03, -0.04].into_iter().cycle();
        for n_rows in [16; 30].into_iter().chain(17..=20).chain([1, 16, 24, 2, 8]) {
            let time = (1e-3 + 0.9e-3 * n_rows as f64) * (1.0 + wrong.next().unwrap());
            pace.passed(
                &[Share { n_guesses: n_rows - 1, ..share(0, n_rows, Role::Generated) }],
                Duration::from_secs_f64(time),
            );
        }
        for n_rows in [1, 8, 15, 16, 17, 20, 24, 32] {
            let row = pace.expected(n_rows + 1).unwrap() - pace.expected(n_rows).unwrap();
            assert!((0.6e-3..1.2e-3).contains(&row), "{row} of {n_rows}");
        }
    }

    #[test]
    fn a_machine_that_becomes_slower_is_found_out() {
        let mut pace = Pace::new(9);
        (0..100).for_each(|_| _ = run(&mut pace, 4, (1e-3, 1e-4, 1e-3, 0.0)));
        let late: Vec<_> = (0..200).map(|_| run(&mut pace, 4, (1e-3, 4e-4, 1e-2, 0.0))).collect();
        let (time, alone, _) = late[150];
        assert!(time <= 2.0 * alone, "{time} for {alone}");
    }
}
