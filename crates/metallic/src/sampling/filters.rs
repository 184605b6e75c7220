//! Filters: which tokens stay, likeliest first.

use super::{Candidate, largest};

fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    // Ties go to the lower id, so that the order never depends on the sort.
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Collects the `k` likeliest tokens, or all for 0, likeliest first; never none.
pub(super) fn top_k(logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    if (1..=MAX_INSERTED).contains(&k) {
        insert_likeliest(logits, k, candidates);
    } else {
        // What can't be chosen need not be sorted: where an answer has a form, nearly all.
        let possible = |(_, logit): &(usize, &f32)| **logit > f32::NEG_INFINITY;
        let candidate = |(id, &logit): (usize, &f32)| Candidate { id: id as u32, logit };
        candidates.extend(logits.iter().enumerate().filter(possible).map(candidate));
        if (1..candidates.len()).contains(&k) {
            candidates.select_nth_unstable_by(k - 1, likelier);
            candidates.truncate(k);
        }
        candidates.sort_unstable_by(likelier);
    }
    if candidates.is_empty() {
        let n = if k == 0 { logits.len() } else { k.min(logits.len()) };
        candidates.extend((0..n as u32).map(|id| Candidate { id, logit: f32::NEG_INFINITY }));
    }
}

/// More than so many are sorted together rather than put in their places one by one.
const MAX_INSERTED: usize = 128;

/// Keeps the `k` likeliest so far in order. Hardly any of a vocabulary's parts has one that is likelier than the last of these.
fn insert_likeliest(logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) {
    let mut last = f32::NEG_INFINITY;
    for (first, part) in (0..).step_by(INSERTED_PART).zip(logits.chunks(INSERTED_PART)) {
        if largest(part) <= last {
            continue;
        }
        for (id, &logit) in (first..).zip(part) {
            if logit > last {
                candidates.truncate(k - 1);
                let place = candidates.partition_point(|before| before.logit >= logit);
                candidates.insert(place, Candidate { id, logit });
                if candidates.len() == k {
                    last = candidates[k - 1].logit;
                }
            }
        }
    }
}

/// Logits whose largest says whether any is to be inserted.
const INSERTED_PART: usize = 64;

/// Probabilities of `candidates`, which come likeliest first.
pub(super) fn softmax(candidates: &[Candidate], temperature: f32, probabilities: &mut Vec<f32>) {
    let largest = candidates[0].logit;
    // Where the largest is infinite, only its equals have a chance (and differences are not numbers).
    let weight = |c: &Candidate| {
        if c.logit == largest { 1.0 } else { ((c.logit - largest) / temperature).exp() }
    };
    probabilities.clear();
    probabilities.extend(candidates.iter().map(weight));
    let sum: f32 = probabilities.iter().sum();
    probabilities.iter_mut().for_each(|p| *p /= sum);
}

/// Keeps the likeliest until their probabilities reach `p`.
pub(super) fn top_p(p: f32, candidates: &mut Vec<Candidate>, probabilities: &mut Vec<f32>) {
    if p >= 1.0 {
        return;
    }
    softmax(candidates, 1.0, probabilities);
    candidates.truncate(n_to_reach(p, probabilities.iter().copied()));
}

/// Keeps those whose logit is within `n` standard deviations, of all logits, of the largest (Tang et al. 2024,
/// "Top-nσ: Not All Logits Are You Need"). Tokens that are ruled out don't count.
pub(super) fn top_n_sigma(n: f32, logits: &[f32], candidates: &mut Vec<Candidate>) {
    let finite = || logits.iter().filter(|logit| logit.is_finite()).map(|logit| f64::from(*logit));
    let count = finite().count() as f64;
    let mean = finite().sum::<f64>() / count;
    let variance = finite().map(|logit| (logit - mean) * (logit - mean)).sum::<f64>() / count;
    let threshold = f64::from(candidates[0].logit) - f64::from(n) * variance.sqrt();
    let kept = candidates.iter().take_while(|c| f64::from(c.logit) >= threshold).count();
    candidates.truncate(kept.max(1));
}

/// Of the tokens that are at least `threshold` likely, keeps only the least likely: "exclude top choices" (proposed
/// by p-e-w for text-generation-webui, 2024).
pub(super) fn xtc(threshold: f32, candidates: &mut Vec<Candidate>, probabilities: &mut Vec<f32>) {
    softmax(candidates, 1.0, probabilities);
    let n_likely = probabilities.iter().take_while(|p| **p >= threshold).count();
    candidates.drain(..n_likely.saturating_sub(1));
}

/// Keeps those at least `p` times as likely as the likeliest.
pub(super) fn min_p(p: f32, candidates: &mut Vec<Candidate>) {
    if p <= 0.0 {
        return;
    }
    let threshold = candidates[0].logit + p.ln();
    let kept = candidates.iter().take_while(|c| c.logit >= threshold).count();
    candidates.truncate(kept.max(1));
}

/// Keeps those whose surprise `−ln p` is nearest the expected surprise until their probabilities reach `p`.
pub(super) fn typical(p: f32, candidates: &mut Vec<Candidate>, probabilities: &mut Vec<f32>) {
    softmax(candidates, 1.0, probabilities);
    let surprise = |p: f32| if p > 0.0 { -p.ln() } else { f32::INFINITY };
    let expected: f32 = probabilities.iter().filter(|p| **p > 0.0).map(|&p| p * surprise(p)).sum();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let distance = |i: usize| (surprise(probabilities[i]) - expected).abs();
    order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
    order.truncate(n_to_reach(p, order.iter().map(|&i| probabilities[i])));
    order.sort_unstable(); // likeliest first again
    let kept: Vec<Candidate> = order.iter().map(|&i| candidates[i]).collect();
    candidates.clear();
    candidates.extend(kept);
}

/// How many of `probabilities` it takes to reach `p`: at least one.
fn n_to_reach(p: f32, probabilities: impl Iterator<Item = f32>) -> usize {
    let (mut sum, mut n) = (0.0, 0);
    for probability in probabilities {
        sum += probability;
        n += 1;
        if sum >= p {
            break;
        }
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_are_those_that_sorting_all_finds() {
        let mut random = 1u32;
        for n in [1, 5, 63, 64, 65, 1000] {
            for n_values in [2, 30, 100_000] {
                let logits: Vec<f32> = (0..n)
                    .map(|_| {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        match random >> 24 {
                            0..6 => f32::NAN,
                            6..20 => f32::NEG_INFINITY,
                            20 => f32::INFINITY,
                            _ => (random % n_values) as f32,
                        }
                    })
                    .collect();
                let (mut all, mut found) = (Vec::new(), Vec::new());
                top_k(&logits, 0, &mut all);
                for k in [1, 2, 40, MAX_INSERTED, MAX_INSERTED + 1, 5000] {
                    top_k(&logits, k, &mut found);
                    assert_eq!(found, all[..k.min(all.len())], "{n} {n_values} {k}");
                }
            }
        }
    }

    /// Candidates whose softmax gives these probabilities, likeliest first.
    fn of(probabilities: &[f32]) -> Vec<Candidate> {
        let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
        let mut candidates = Vec::new();
        top_k(&logits, 0, &mut candidates);
        candidates
    }

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|c| c.id).collect()
    }

    #[test]
    fn top_k_keeps_the_likeliest_in_order() {
        let mut candidates = Vec::new();
        top_k(&[0.1, 3.0, -1.0, 3.0, f32::NAN, 2.0], 3, &mut candidates);
        assert_eq!(ids(&candidates), [1, 3, 5]);
        top_k(&[1.0, 2.0], 5, &mut candidates);
        assert_eq!(ids(&candidates), [1, 0]);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it() {
        for (p, expected) in [(0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.999, 4), (0.0, 1), (1.0, 4)] {
            let mut candidates = of(&[0.5, 0.3, 0.15, 0.05]);
            top_p(p, &mut candidates, &mut Vec::new());
            assert_eq!(candidates.len(), expected, "{p}");
        }
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        for (p, expected) in [(0.09, 4), (0.11, 3), (0.31, 2), (0.61, 1), (1.0, 1), (0.0, 4)] {
            let mut candidates = of(&[0.5, 0.3, 0.15, 0.05]);
            min_p(p, &mut candidates);
            assert_eq!(candidates.len(), expected, "{p}");
        }
    }

    #[test]
    fn top_n_sigma_is_relative_to_the_spread_of_all_logits() {
        // Mean 0, variance (9 + 1 + 0 + 1 + 9) / 5 = 4: a deviation is 2.
        let logits = [3.0, 1.0, 0.0, -1.0, -3.0, f32::NEG_INFINITY];
        for (n, expected) in [(0.5, 1), (0.99, 1), (1.0, 2), (1.5, 3), (2.0, 4), (3.0, 5)] {
            let mut candidates = Vec::new();
            top_k(&logits, 0, &mut candidates);
            top_n_sigma(n, &logits, &mut candidates);
            assert_eq!(candidates.len(), expected, "{n}");
        }
    }

    #[test]
    fn xtc_keeps_the_least_likely_of_the_likely_and_all_below() {
        for (threshold, expected) in [(0.6, 4), (0.4, 4), (0.29, 3), (0.14, 2), (0.04, 1), (0.0, 1)] {
            let mut candidates = of(&[0.5, 0.3, 0.15, 0.05]);
            xtc(threshold, &mut candidates, &mut Vec::new());
            assert_eq!(ids(&candidates), (4 - expected..4).collect::<Vec<_>>(), "{threshold}");
        }
    }

    #[test]
    fn typical_drops_the_too_likely_as_well() {
        // Expected surprise 1.142; those of the tokens are 0.693, 1.204, 1.897 and 2.996: nearest come
        // token 1 (0.3), then 0 (0.8 together), then 2.
        for (p, expected) in [(0.2, vec![1]), (0.5, vec![0, 1]), (0.9, vec![0, 1, 2])] {
            let mut candidates = of(&[0.5, 0.3, 0.15, 0.05]);
            typical(p, &mut candidates, &mut Vec::new());
            assert_eq!(ids(&candidates), expected, "{p}");
        }
    }
}
