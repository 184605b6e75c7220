//! DRY: a penalty on tokens that continue a repetition (proposed by p-e-w for text-generation-webui, 2024).

use super::DryParams;

/// Lowers the logit of every token that followed an earlier occurrence of the text's end.
pub(super) fn apply(params: &DryParams, recent: &[u32], logits: &mut [f32]) {
    let window = &recent[recent.len().saturating_sub(params.last_n)..];
    let reversed: Vec<u32> = window.iter().rev().copied().collect();
    let limit = reversed.iter().take_while(|token| !params.breakers.contains(token)).count();
    if params.multiplier == 0.0 || limit < params.allowed_length {
        return;
    }
    // The longest repetition that each token would continue, as (token, length).
    let mut longest: Vec<(u32, usize)> = Vec::new();
    for (back, length) in common_prefixes(&reversed).into_iter().enumerate().skip(1) {
        let (next, length) = (reversed[back - 1], length.min(limit));
        if length >= params.allowed_length && length > 0 {
            longest.push((next, length));
        }
    }
    longest.sort_unstable();
    for run in longest.chunk_by(|a, b| a.0 == b.0) {
        let (token, length) = run[run.len() - 1];
        if let Some(logit) = logits.get_mut(token as usize)
            && !params.breakers.contains(&token)
        {
            let penalty = params.multiplier * params.base.powi((length - params.allowed_length) as i32);
            *logit -= penalty.min(f32::MAX);
        }
    }
}

/// For each place, how many tokens from there on equal the tokens from the start on: the Z function, in linear
/// time (Gusfield 1997, section 1.4).
fn common_prefixes(text: &[u32]) -> Vec<usize> {
    let mut lengths = vec![0; text.len()];
    let (mut left, mut right) = (0, 0);
    for i in 1..text.len() {
        let mut length = if i < right { lengths[i - left].min(right - i) } else { 0 };
        while i + length < text.len() && text[length] == text[i + length] {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        lengths[i] = length;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, tried at every place.
    fn naive(params: &DryParams, text: &[u32], token: u32) -> f32 {
        let ends_with_breaker = |part: &[u32]| part.iter().any(|t| params.breakers.contains(t));
        let mut longest = 0;
        for at in (0..text.len()).filter(|&at| text[at] == token) {
            for length in 1..=at {
                let end = &text[text.len() - length..];
                if text[at - length..at] == *end && !ends_with_breaker(end) {
                    longest = longest.max(length);
                }
            }
        }
        if longest == 0 || longest < params.allowed_length || params.breakers.contains(&token) {
            return 0.0;
        }
        params.multiplier * params.base.powi((longest - params.allowed_length) as i32)
    }

    #[test]
    fn penalties_are_those_of_the_definition() {
        let params = DryParams { breakers: vec![4], ..DryParams::default() };
        let mut state = 12345u32;
        for round in 0..300 {
            let text: Vec<u32> = (0..round % 40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 28) % (2 + round % 4)
                })
                .collect();
            let mut logits = [0.0; 6];
            apply(&params, &text, &mut logits);
            let expected: Vec<f32> = (0..6).map(|token| -naive(&params, &text, token)).collect();
            assert_eq!(logits.to_vec(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_long_repetition_costs_more_than_a_short_one() {
        let text = [1, 2, 3, 9, 5, 1, 2, 3]; // "1 2 3" was followed by 9
        let mut logits = [0.0; 10];
        apply(&DryParams::default(), &text, &mut logits);
        assert_eq!(logits[9], -0.8 * 1.75);
        assert_eq!(logits.iter().filter(|logit| **logit != 0.0).count(), 1);
    }
}
