//! A mixture of experts: each token is sent to the few experts that its router scores highest.
//!
//! The rows that chose an expert are gathered, so its weights are read once a batch. A row's experts are
//! summed in the order of their numbers, whatever else is in the batch and whichever are in memory: those that are not
//! are read from the moment that they are chosen, while others are computed.

use super::config::{ExpertsConfig, FfnConfig, ModelConfig, Scoring};
use super::part::Parts;
use super::residual::Residual;
use super::scratch::Scratch;
use super::stage::Batch;
use super::weights::{ExpertMatrix, ExpertWeights, SharedWeights};
use crate::backend::{Backend, Input, MatmulJob, Tokens};
use crate::error::Result;
use crate::memory::{Lease, Tier};

/// Adds to `scratch.hidden`.
pub(super) fn forward<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &ExpertWeights<B::Matrix, B::Buffer>,
    residual: &Residual<'_, B>,
    batch: &Batch<'_>,
    routing: &mut Routing,
    scratch: &mut Scratch<B>,
) -> Result<()> {
    let Scratch { hidden, normed, update, gate, up, router, expert_input, expert_output, .. } = scratch;
    let (n_embd, n_rows, tokens) = (residual.width, residual.n_rows(), residual.tokens);

    let rows = residual.rows(backend, hidden, normed);
    match &weights.shared {
        Some(shared) => {
            run_shared(backend, config, shared, rows, tokens, (&mut *gate, &mut *up, &mut *update))?
        }
        None => backend.clear(update, n_rows * n_embd),
    }
    if let Some(shared_router) = weights.shared.as_ref().and_then(|shared| shared.router.as_ref()) {
        backend.matmul(&Input::Rows(rows), tokens, &mut [MatmulJob::new(shared_router, &mut *router)])?;
        routing.scores.resize(n_rows, 0.0);
        backend.read(router, 0, &mut routing.scores);
        for (row, &score) in routing.scores.iter().enumerate() {
            backend.scale_row(update, row, n_embd, sigmoid(score));
        }
    }
    backend.matmul(&Input::Rows(rows), tokens, &mut [weights.router.job(&mut *router)])?;
    routing.scores.resize(n_rows * weights.config.n_expert, 0.0);
    backend.read(router, 0, &mut routing.scores);
    routing.choice_bias.clear();
    if let Some(bias) = &weights.choice_bias {
        routing.choice_bias.resize(weights.config.n_expert, 0.0);
        backend.read(bias, 0, &mut routing.choice_bias);
    }
    routing.choose(&weights.config);

    let matrices = |backend: &B, expert: usize| {
        [&weights.gate, &weights.up, &weights.down].map(|matrix| matrix.of(backend, expert))
    };
    let wanted = routing.chosen_experts().map(|expert| (expert, routing.chosen[expert].rows.len()));
    // Where gate and up share a tensor, it is announced once: by the one that begins it.
    for matrix in [&weights.gate, &weights.up, &weights.down].into_iter().filter(|matrix| matrix.first == 0) {
        backend.will_use_experts(&matrix.all, wanted.clone());
    }
    for expert in routing.chosen_experts() {
        matrices(backend, expert).iter().for_each(|matrix| backend.will_use(matrix));
    }
    let n_gemv = batch.n_gemv((weights.config.n_used, weights.config.n_expert));
    for expert in routing.chosen_experts() {
        let Chosen { rows: chosen, weights: shares } = &routing.chosen[expert];
        let [gate_rows, up_rows, down_rows] = matrices(backend, expert);
        let gemv = chosen.partition_point(|&row| (row as usize) < n_gemv);
        let tokens = Tokens { gemv, gemm: chosen.len() - gemv };
        backend.gather_rows(rows, chosen, n_embd, expert_input);
        let mut jobs =
            [weights.gate.job(expert, &gate_rows, &mut *gate), weights.up.job(expert, &up_rows, &mut *up)];
        backend.matmul(&Input::Rows(expert_input), tokens, &mut jobs)?;
        let inner = Input::Gated { activation: config.activation, gate, up };
        let mut job = [weights.down.job(expert, &down_rows, &mut *expert_output)];
        backend.matmul(&inner, tokens, &mut job)?;
        backend.scatter_add_rows(expert_output, chosen, shares, n_embd, update);
    }
    residual.add(backend, hidden, update);
    Ok(())
}

/// Writes what the shared expert makes of all rows to the last buffer; the others are for its inner layer.
fn run_shared<B: Backend>(
    backend: &mut B,
    config: &FfnConfig,
    weights: &SharedWeights<B::Matrix, B::Buffer>,
    rows: &B::Buffer,
    tokens: Tokens,
    (gate, up, out): (&mut B::Buffer, &mut B::Buffer, &mut B::Buffer),
) -> Result<()> {
    let mut jobs = [weights.gate.job(&mut *gate), weights.up.job(&mut *up)];
    backend.matmul(&Input::Rows(rows), tokens, &mut jobs)?;
    let inner = Input::Gated { activation: config.activation, gate, up };
    backend.matmul(&inner, tokens, &mut [weights.down.job(out)])
}

impl<M, V> ExpertMatrix<M, V> {
    /// The matrix of one expert.
    fn of<B: Backend<Matrix = M, Buffer = V>>(&self, backend: &B, expert: usize) -> M {
        let first = self.first + expert * self.stride;
        backend.matrix_rows(&self.all, first..first + self.n_rows)
    }

    /// The product with the matrix of one expert.
    fn job<'a, B: Backend<Matrix = M, Buffer = V>>(
        &'a self,
        expert: usize,
        matrix: &'a M,
        out: &'a mut V,
    ) -> MatmulJob<'a, B> {
        MatmulJob { bias: self.biases.get(expert), ..MatmulJob::new(matrix, out) }
    }
}

/// What [`Routing`] is for, in plans.
pub(crate) const ROUTING: &str = "rows of each expert";

/// Which rows go to which expert, in buffers that are used again.
#[derive(Default)]
pub(crate) struct Routing {
    scores: Vec<f32>,
    /// Added to scores for the choice, where there is any.
    choice_bias: Vec<f32>,
    /// What the choice goes by, of experts and of groups, and both from the best to the worst.
    ranks: Vec<f32>,
    group_ranks: Vec<f32>,
    order: Vec<u32>,
    groups: Vec<u32>,
    chosen: Vec<Chosen>,
    _lease: Option<Lease>,
}

/// The rows that one expert works on, and its share in each.
#[derive(Default, Debug, PartialEq)]
struct Chosen {
    rows: Vec<u32>,
    weights: Vec<f32>,
}

impl Routing {
    /// With room for batches of `n_batch` rows, whichever experts they choose.
    pub(super) fn new(config: &ModelConfig, parts: &Parts, n_batch: usize, ram: &Tier) -> Result<Self> {
        let Some(n_expert) = config.max_experts(parts) else { return Ok(Self::default()) };
        let room = || Chosen { rows: Vec::with_capacity(n_batch), weights: Vec::with_capacity(n_batch) };
        Ok(Self {
            _lease: Some(ram.lease(ROUTING, Self::bytes(config, parts, n_batch))?),
            scores: Vec::with_capacity(n_batch * n_expert),
            choice_bias: Vec::with_capacity(n_expert),
            ranks: Vec::with_capacity(n_expert),
            group_ranks: Vec::with_capacity(n_expert),
            order: Vec::with_capacity(n_expert),
            groups: Vec::with_capacity(n_expert),
            chosen: (0..n_expert).map(|_| room()).collect(),
        })
    }

    /// Bytes that [`new`](Self::new) allocates: a score of each expert for each row, the rows and shares of each
    /// expert, and what the choice of one row needs.
    pub(crate) fn bytes(config: &ModelConfig, parts: &Parts, n_batch: usize) -> u64 {
        let n_expert = config.max_experts(parts).unwrap_or(0) as u64;
        let of_expert = 2 * size_of::<u32>() + 3 * size_of::<f32>() + size_of::<Chosen>();
        let of_row = 2 * size_of::<f32>() + size_of::<u32>();
        n_expert
            .saturating_mul((of_row as u64).saturating_mul(n_batch as u64).saturating_add(of_expert as u64))
    }

    /// The experts that some row goes to, by number.
    fn chosen_experts(&self) -> impl Iterator<Item = usize> + Clone {
        self.chosen.iter().enumerate().filter(|(_, chosen)| !chosen.rows.is_empty()).map(|(expert, _)| expert)
    }

    /// Sends each row to the best experts, those of the best groups where there are groups. What is added to the
    /// scores for the choice does not count in the shares.
    fn choose(&mut self, config: &ExpertsConfig) {
        self.chosen.resize_with(config.n_expert, Chosen::default);
        for chosen in &mut self.chosen {
            chosen.rows.clear();
            chosen.weights.clear();
        }
        for (row, scores) in self.scores.chunks_exact_mut(config.n_expert).enumerate() {
            score(scores, config.scoring);
            self.ranks.clear();
            self.ranks.extend_from_slice(scores);
            self.ranks.iter_mut().zip(&self.choice_bias).for_each(|(rank, bias)| *rank += bias);
            self.order.clear();
            self.order.extend(0..config.n_expert as u32);
            if let Some(groups) = config.groups {
                let len = config.n_expert / groups.n_group;
                // By their two best experts where the choice is biased (DeepSeek-V3), by the best else (V2).
                let n_best = if self.choice_bias.is_empty() { 1 } else { 2 };
                self.group_ranks.clear();
                self.group_ranks.extend(self.ranks.chunks_exact(len).map(|ranks| sum_of_best(ranks, n_best)));
                self.groups.clear();
                self.groups.extend(0..groups.n_group as u32);
                best_first(&mut self.groups, &self.group_ranks);
                let used = &self.groups[..groups.n_used];
                self.order.retain(|expert| used.contains(&(expert / len as u32)));
            }
            best_first(&mut self.order, &self.ranks);
            let used = &self.order[..config.n_used];
            if config.scoring == Scoring::SoftmaxOfUsed {
                let best = scores[used[0] as usize];
                used.iter()
                    .for_each(|&expert| scores[expert as usize] = (scores[expert as usize] - best).exp());
            }
            let normalized = config.normalize || config.scoring == Scoring::SoftmaxOfUsed;
            let sum: f32 = used.iter().map(|&expert| scores[expert as usize]).sum();
            let factor = if normalized { config.scale / sum.max(MIN_SUM) } else { config.scale };
            for &expert in used {
                let chosen = &mut self.chosen[expert as usize];
                chosen.rows.push(row as u32);
                chosen.weights.push(scores[expert as usize] * factor);
            }
        }
    }
}

/// Shares are not divided by less: the least normal number of half precision, as publishers' code has it.
const MIN_SUM: f32 = 6.103_515_6e-5;

/// From a router's output to the scores of experts.
fn score(x: &mut [f32], scoring: Scoring) {
    match scoring {
        Scoring::Softmax => {
            let best = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            x.iter_mut().for_each(|x| *x = (*x - best).exp());
            let sum: f32 = x.iter().sum();
            x.iter_mut().for_each(|x| *x /= sum);
        }
        Scoring::Sigmoid => x.iter_mut().for_each(|x| *x = sigmoid(*x)),
        Scoring::SoftmaxOfUsed => {}
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Sorts by rank. Ties go to the lower number, so that the choice never depends on the sort.
fn best_first(numbers: &mut [u32], ranks: &[f32]) {
    numbers.sort_unstable_by(|&a, &b| ranks[b as usize].total_cmp(&ranks[a as usize]).then(a.cmp(&b)));
}

/// The sum of the best one or two.
fn sum_of_best(ranks: &[f32], n: usize) -> f32 {
    let mut best = [f32::NEG_INFINITY; 2];
    for &rank in ranks {
        if rank > best[0] {
            best = [rank, best[0]];
        } else if rank > best[1] {
            best[1] = rank;
        }
    }
    best[..n.min(ranks.len())].iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPERTS: ExpertsConfig = ExpertsConfig {
        n_expert: 3,
        n_used: 2,
        scoring: Scoring::Softmax,
        normalize: true,
        scale: 1.0,
        groups: None,
        shared: None,
    };

    fn close(a: f32, b: f32) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }

    /// The rows of each expert, and its share in the first of them.
    fn chosen(routing: &Routing) -> Vec<(&[u32], f32)> {
        let share = |chosen: &Chosen| chosen.weights.first().copied().unwrap_or(0.0);
        routing.chosen.iter().map(|chosen| (chosen.rows.as_slice(), share(chosen))).collect()
    }

    #[test]
    fn a_bias_moves_the_choice_and_not_the_shares() {
        let choice_bias = vec![0.0, -9.0, 0.0];
        let mut routing = Routing { scores: vec![0.0, 1.0, -1.0], choice_bias, ..Routing::default() };
        let config = ExpertsConfig { scoring: Scoring::Sigmoid, normalize: false, scale: 2.0, ..EXPERTS };
        routing.choose(&config);
        let found = chosen(&routing);
        assert_eq!([found[0].0, found[1].0, found[2].0], [&[0][..], &[], &[0]]);
        close(found[0].1, 1.0);
        close(found[2].1, 2.0 / (1.0 + 1_f32.exp()));
    }

    #[test]
    fn softmax_of_the_used_leaves_the_others_out() {
        let mut routing = Routing { scores: [1.0_f32, 9.0, 3.0].map(f32::ln).to_vec(), ..Routing::default() };
        let config = ExpertsConfig { scoring: Scoring::SoftmaxOfUsed, normalize: false, ..EXPERTS };
        routing.choose(&config);
        close(chosen(&routing)[1].1, 0.75);
        close(chosen(&routing)[2].1, 0.25);
    }

    #[test]
    fn experts_come_from_the_best_groups() {
        let groups = Some(super::super::config::ExpertGroups { n_group: 2, n_used: 1 });
        let config = ExpertsConfig { n_expert: 4, groups, scoring: Scoring::Sigmoid, ..EXPERTS };
        let rows = |bias: &[f32]| {
            let choice_bias = bias.to_vec();
            let scores = vec![3.0, -5.0, 2.0, 2.0];
            let mut routing = Routing { scores, choice_bias, ..Routing::default() };
            routing.choose(&config);
            chosen(&routing).iter().map(|(rows, _)| rows.len()).collect::<Vec<_>>()
        };
        assert_eq!(rows(&[]), [1, 1, 0, 0], "by the best expert");
        assert_eq!(rows(&[0.0; 4]), [0, 0, 1, 1], "by the two best");
    }

    #[test]
    fn rows_go_to_their_best_experts_with_shares_that_sum_to_one() {
        let mut routing = Routing {
            // Two rows of three scores whose exponentials are 1, 3, 2 and 4, 1, 1.
            scores: [1.0f32, 3.0, 2.0, 4.0, 1.0, 1.0].map(f32::ln).to_vec(),
            ..Routing::default()
        };
        routing.choose(&EXPERTS);
        let rows = |expert: usize| routing.chosen[expert].rows.clone();
        assert_eq!([rows(0), rows(1), rows(2)], [vec![1], vec![0, 1], vec![0]]);
        close(routing.chosen[1].weights[0], 0.6);
        close(routing.chosen[2].weights[0], 0.4);
        close(routing.chosen[0].weights[0], 0.8);
        close(routing.chosen[1].weights[1], 0.2);
    }
}
