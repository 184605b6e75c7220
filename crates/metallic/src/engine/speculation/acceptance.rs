//! How many guesses are worth a pass: as many as make the most tokens a second, by how often guesses were right and by how long
//! passes of so many rows took.

use super::MAX_KINDS;

/// What a right or wrong guess counts after the next one, so that what was right long ago is forgotten.
const DECAY: f64 = 0.9;

/// Before any guess, so many are taken to have been tried, and this share of them to have been right.
const FIRST: Share = Share { right: 1.0, tried: 2.0 };

/// What an answer's first guesses are taken to be worth of those of the answers before.
const N_BEFORE: f64 = 2.0;

/// Passes without a guess before one is tried again where guesses have not been worth their time: doubled up to the most each
/// time that it is wrong.
const MIN_PAUSE: u32 = 8;
const MAX_PAUSE: u32 = 64;

/// How often guesses of a sequence were right.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance([Kind; MAX_KINDS]);

#[derive(Clone, Copy, Debug)]
struct Kind {
    share: Share,
    /// Passes for which no guess was worth it, since one was made.
    n_without: u32,
    pause: u32,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    right: f64,
    tried: f64,
}

impl Default for Acceptance {
    fn default() -> Self {
        Self([Kind { share: FIRST, n_without: 0, pause: MIN_PAUSE }; MAX_KINDS])
    }
}

impl Acceptance {
    /// For the next sequence: what was right in those before is taken to be about as often right in it.
    pub(crate) fn next(&self) -> Self {
        let of = |kind: &Kind| {
            let Share { right, tried } = kind.share;
            let share = Share { right: N_BEFORE * right / tried, tried: N_BEFORE };
            Kind { share, n_without: 0, pause: MIN_PAUSE }
        };
        Self(self.0.each_ref().map(of))
    }

    /// The chance that a guess of a kind is right where those before it are.
    pub(crate) fn chance(&self, kind: usize) -> f64 {
        let Share { right, tried } = self.0[kind].share;
        right / tried
    }

    /// Guesses that are to be made of a kind for which so many are worth it: one now and then where none are, of all of so many
    /// sequences as often as of one.
    pub(crate) fn at_least_at_times(&mut self, kind: usize, n_worth: usize, n_sequences: usize) -> usize {
        let Kind { n_without, pause, .. } = &mut self.0[kind];
        if n_worth > 0 {
            return n_worth;
        }
        *n_without += 1;
        usize::from(*n_without as usize > *pause as usize * n_sequences)
    }

    /// Learns how many of some guesses were right, before the first that was not.
    pub(crate) fn learn(&mut self, kind: usize, n_guesses: usize, n_right: usize) {
        let Kind { share, n_without, pause } = &mut self.0[kind];
        for is_right in (0..n_guesses.min(n_right + 1)).map(|i| i < n_right) {
            share.right = DECAY * share.right + if is_right { 1.0 } else { 0.0 };
            share.tried = DECAY * share.tried + 1.0;
        }
        *n_without = 0;
        *pause = if n_right > 0 { MIN_PAUSE } else { (2 * *pause).min(MAX_PAUSE) };
    }
}

/// Sequences that share a pass.
pub(crate) struct Slots<'a> {
    /// For each that may guess, the chance of its guesses, and how many there may be.
    pub(crate) chances: &'a [(f64, usize)],
    /// Sequences that do not.
    pub(crate) n_others: usize,
    /// Guesses that the batch has room for.
    pub(crate) room: usize,
}

/// How many guesses each sequence is to have. `seconds` is what a pass of so many rows takes, `guess_s` what making a guess does.
pub(crate) fn divide(slots: &Slots<'_>, seconds: impl Fn(usize) -> f64, guess_s: f64) -> Vec<usize> {
    let n_sequences = slots.chances.len() + slots.n_others;
    let mut counts = vec![0; slots.chances.len()];
    let mut best = counts.clone();
    // The chance that the next guess of each counts.
    let mut next: Vec<f64> = slots.chances.iter().map(|(chance, _)| *chance).collect();
    let mut n_tokens = n_sequences as f64;
    let mut best_rate = n_tokens / seconds(n_sequences);
    for n_guesses in 1..=slots.room {
        let open = (0..next.len()).filter(|i| counts[*i] < slots.chances[*i].1);
        let Some(likeliest) = open.max_by(|a, b| next[*a].total_cmp(&next[*b])) else { break };
        counts[likeliest] += 1;
        n_tokens += next[likeliest];
        next[likeliest] *= slots.chances[likeliest].0;
        let rate = n_tokens / (seconds(n_sequences + n_guesses) + guess_s * n_guesses as f64);
        if rate > best_rate {
            best_rate = rate;
            best.clone_from(&counts);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(chances: &[(f64, usize)], row: f64, guess_s: f64) -> Vec<usize> {
        let slots = Slots { chances, n_others: 0, room: 100 };
        divide(&slots, |n_rows| 1.0 + row * (n_rows - 1) as f64, guess_s)
    }

    #[test]
    fn guesses_are_as_many_as_make_the_most_tokens_a_second() {
        // By hand: with a chance c and a cost r of each row, (1 + c + … + c^n) / (1 + r n) is largest.
        assert_eq!(divided(&[(0.5, 16)], 0.1, 0.0), [2]); // 1.4583 of 1.3636, 1.4583, 1.4423
        assert_eq!(divided(&[(0.5, 16)], 0.5, 0.0), [0]); // 1.5 / 1.5 is no gain
        assert_eq!(divided(&[(0.9, 4)], 0.01, 0.0), [4]);
        assert_eq!(divided(&[(1.0, 16)], 0.9, 0.0), [16]);
        assert_eq!(divided(&[(0.5, 16)], 0.1, 0.4), [0]);
        // Of two sequences the likelier guesses are tried first.
        let two = divided(&[(0.3, 16), (0.9, 16)], 0.2, 0.0);
        assert!(two[0] < two[1] && two[1] > 1, "{two:?}");
        let slots = Slots { chances: &[(0.9, 16), (0.9, 16)], n_others: 3, room: 3 };
        let counts = divide(&slots, |n_rows| 1.0 + 0.01 * n_rows as f64, 0.0);
        assert_eq!(counts.iter().sum::<usize>(), 3);
    }

    #[test]
    fn what_is_never_right_is_tried_less_and_less() {
        let mut acceptance = Acceptance::default();
        let mut n_guesses = 0;
        for _ in 0..1000 {
            let n = divide(
                &Slots { chances: &[(acceptance.chance(0), 16)], n_others: 0, room: 16 },
                |n_rows| 1.0 + 0.3 * (n_rows - 1) as f64,
                0.0,
            )[0];
            let n = acceptance.at_least_at_times(0, n, 1);
            if n > 0 {
                acceptance.learn(0, n, 0);
            }
            n_guesses += n;
        }
        assert!((10..40).contains(&n_guesses), "{n_guesses}");
        assert!(acceptance.next().chance(0) < 0.1, "nor in the next answer");
        // Once it is right, it is tried again.
        (0..6).for_each(|_| acceptance.learn(0, 1, 1));
        assert!(acceptance.chance(0) > 0.4);
    }
}
