//! A mixture of experts: each token is sent to the few experts that its router scores highest.
//!
//! The rows that chose an expert are gathered, so its weights are read once a batch. A row's experts are
//! summed in the order of their numbers, whatever else is in the batch and whichever are in memory: those that are not
//! are read from the moment that they are chosen, while others are computed.

use super::config::{ExpertsConfig, FfnConfig};
use super::residual::Residual;
use super::scratch::Scratch;
use super::weights::ExpertWeights;
use crate::backend::{Backend, Input, MatmulJob};
use crate::error::Result;

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &ExpertWeights<B::Matrix>,
    residual: &Residual<'_, B>,
    routing: &mut Routing,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let Scratch { hidden, normed, update, gate, up, router, expert_input, expert_output, .. } = scratch;
    let (n_ff, n_embd, n_rows) = (config.n_ff, weights.n_embd, residual.n_rows);

    backend.rms_norm(hidden, n_rows, residual.norm, residual.eps, normed);
    backend.matmul(&Input::Rows(normed), n_rows, &mut [MatmulJob::new(&weights.router, &mut *router)])?;
    routing.scores.resize(n_rows * weights.config.n_expert, 0.0);
    backend.read(router, 0, &mut routing.scores);
    routing.choose(&weights.config);

    let matrices = |backend: &B, expert: usize| {
        let inner = expert * n_ff..(expert + 1) * n_ff;
        let outer = expert * n_embd..(expert + 1) * n_embd;
        [
            backend.matrix_rows(&weights.gate, inner.clone()),
            backend.matrix_rows(&weights.up, inner),
            backend.matrix_rows(&weights.down, outer),
        ]
    };
    let wanted = routing.chosen_experts().map(|expert| (expert, routing.chosen[expert].rows.len()));
    for all in [&weights.gate, &weights.up, &weights.down] {
        backend.will_use_experts(all, wanted.clone());
    }
    for expert in routing.chosen_experts() {
        matrices(backend, expert).iter().for_each(|matrix| backend.will_use(matrix));
    }
    backend.clear(update, n_rows * n_embd);
    for expert in routing.chosen_experts() {
        let Chosen { rows, weights: shares } = &routing.chosen[expert];
        let [gate_rows, up_rows, down_rows] = matrices(backend, expert);
        backend.gather_rows(normed, rows, n_embd, expert_input);
        let mut jobs = [MatmulJob::new(&gate_rows, &mut *gate), MatmulJob::new(&up_rows, &mut *up)];
        backend.matmul(&Input::Rows(expert_input), rows.len(), &mut jobs)?;
        let inner = Input::Gated { activation: config.activation, gate, up };
        backend.matmul(&inner, rows.len(), &mut [MatmulJob::new(&down_rows, &mut *expert_output)])?;
        backend.scatter_add_rows(expert_output, rows, shares, n_embd, update);
    }
    residual.add(backend, hidden, update, n_rows * n_embd);
    Ok(())
}

/// Which rows go to which expert, in buffers that are used again.
#[derive(Default)]
pub(super) struct Routing {
    scores: Vec<f32>,
    order: Vec<u32>,
    chosen: Vec<Chosen>,
}

/// The rows that one expert works on, and its share in each.
#[derive(Default, Debug, PartialEq)]
struct Chosen {
    rows: Vec<u32>,
    weights: Vec<f32>,
}

impl Routing {
    /// The experts that some row goes to, by number.
    fn chosen_experts(&self) -> impl Iterator<Item = usize> + Clone {
        self.chosen.iter().enumerate().filter(|(_, chosen)| !chosen.rows.is_empty()).map(|(expert, _)| expert)
    }

    /// Softmax over all scores of a row, then the best `n_used`, their shares normalised to sum to one.
    fn choose(&mut self, config: &ExpertsConfig) {
        self.chosen.resize_with(config.n_expert, Chosen::default);
        let n_rows = self.scores.len() / config.n_expert;
        for chosen in &mut self.chosen {
            chosen.rows.clear();
            chosen.weights.clear();
            // An expert that is first chosen late must not be the one that allocates.
            chosen.rows.reserve(n_rows);
            chosen.weights.reserve(n_rows);
        }
        for (row, scores) in self.scores.chunks_exact(config.n_expert).enumerate() {
            self.order.clear();
            self.order.extend(0..config.n_expert as u32);
            // Ties go to the lower number, so that the choice never depends on the sort.
            self.order
                .sort_unstable_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
            let used = &self.order[..config.n_used];
            // The softmax's denominator cancels in the normalisation.
            let best = scores[used[0] as usize];
            let share = |expert: u32| (scores[expert as usize] - best).exp();
            let sum: f32 = used.iter().map(|&expert| share(expert)).sum();
            for &expert in used {
                let chosen = &mut self.chosen[expert as usize];
                chosen.rows.push(row as u32);
                chosen.weights.push(share(expert) / sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_their_best_experts_with_shares_that_sum_to_one() {
        let mut routing = Routing {
            // Two rows of three scores whose exponentials are 1, 3, 2 and 4, 1, 1.
            scores: [1.0f32, 3.0, 2.0, 4.0, 1.0, 1.0].map(f32::ln).to_vec(),
            ..Routing::default()
        };
        routing.choose(&ExpertsConfig { n_expert: 3, n_used: 2 });
        let rows = |expert: usize| routing.chosen[expert].rows.clone();
        assert_eq!([rows(0), rows(1), rows(2)], [vec![1], vec![0, 1], vec![0]]);
        let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(routing.chosen[1].weights[0], 0.6);
        close(routing.chosen[2].weights[0], 0.4);
        close(routing.chosen[0].weights[0], 0.8);
        close(routing.chosen[1].weights[1], 0.2);
    }
}
