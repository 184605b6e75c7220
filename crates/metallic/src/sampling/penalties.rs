//! Penalties on tokens that occurred recently.

use super::SamplingParams;

/// Whether any logit is changed.
pub(super) fn apply_to_some(params: &SamplingParams) -> bool {
    params.repeat_penalty != 1.0 || params.frequency_penalty != 0.0 || params.presence_penalty != 0.0
}

/// Changes the logits of each of the last `penalty_last_n` tokens of `recent`, once, by how often it occurs.
pub(super) fn apply(params: &SamplingParams, recent: &[u32], logits: &mut [f32]) {
    let SamplingParams { repeat_penalty, frequency_penalty, presence_penalty, .. } = *params;
    if !apply_to_some(params) {
        return;
    }
    let mut window = recent[recent.len().saturating_sub(params.penalty_last_n)..].to_vec();
    window.sort_unstable();
    for run in window.chunk_by(|a, b| a == b) {
        let Some(logit) = logits.get_mut(run[0] as usize) else { continue };
        *logit = if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
        *logit -= run.len() as f32 * frequency_penalty + presence_penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_signs_are_as_defined() {
        let params = SamplingParams {
            repeat_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            penalty_last_n: 4,
            ..SamplingParams::default()
        };
        let mut logits = [4.0, -1.0, 3.0, 1.0];
        apply(&params, &[3, 0, 1, 0, 2, 77], &mut logits); // token 3 is too long ago, 77 not a token
        assert_eq!(logits, [4.0 / 2.0 - 0.75, -2.0 - 0.75, 1.5 - 0.75, 1.0]);
    }

    #[test]
    fn defaults_change_nothing() {
        let mut logits = [1.0, 2.0];
        apply(&SamplingParams::default(), &[0, 1], &mut logits);
        assert_eq!(logits, [1.0, 2.0]);
    }
}
