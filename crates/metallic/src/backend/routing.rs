//! Which rows go to which expert, chosen on the host.

use super::{RoutingShape, Scoring};

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
}

/// The rows that one expert works on, and its share of each.
#[derive(Default, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) rows: Vec<u32>,
    pub(crate) shares: Vec<f32>,
}

impl Routing {
    /// With room for batches of `n_rows` rows, whichever of `n_expert` experts they choose.
    pub(crate) fn new(n_expert: usize, n_rows: usize) -> Self {
        let room = || Chosen { rows: Vec::with_capacity(n_rows), shares: Vec::with_capacity(n_rows) };
        Self {
            scores: Vec::with_capacity(n_rows * n_expert),
            choice_bias: Vec::with_capacity(n_expert),
            ranks: Vec::with_capacity(n_expert),
            group_ranks: Vec::with_capacity(n_expert),
            order: Vec::with_capacity(n_expert),
            groups: Vec::with_capacity(n_expert),
            chosen: (0..n_expert).map(|_| room()).collect(),
        }
    }

    /// Bytes that [`new`](Self::new) allocates: a score of each expert for each row, the rows and shares of each
    /// expert, and what the choice of one row needs.
    pub(crate) fn bytes(n_expert: usize, n_rows: usize) -> u64 {
        let of_expert = 2 * size_of::<u32>() + 3 * size_of::<f32>() + size_of::<Chosen>();
        let of_row = 2 * size_of::<f32>() + size_of::<u32>();
        let of_rows = (of_row as u64).saturating_mul(n_rows as u64);
        (n_expert as u64).saturating_mul(of_rows.saturating_add(of_expert as u64))
    }

    /// Chooses the experts of each row by its scores, to which the bias is added for the choice.
    pub(crate) fn route(&mut self, shape: &RoutingShape, scores: &[f32], choice_bias: Option<&[f32]>) {
        self.scores.clear();
        self.scores.extend_from_slice(scores);
        self.choice_bias.clear();
        self.choice_bias.extend_from_slice(choice_bias.unwrap_or_default());
        self.choose(shape);
    }

    /// The rows that go to an expert.
    pub(crate) fn chosen(&self, expert: usize) -> &Chosen {
        &self.chosen[expert]
    }

    /// The experts that some row goes to, by number.
    pub(crate) fn experts(&self) -> impl Iterator<Item = usize> + Clone {
        self.chosen.iter().enumerate().filter(|(_, chosen)| !chosen.rows.is_empty()).map(|(expert, _)| expert)
    }

    /// Sends each row to the best experts, those of the best groups where there are groups. What is added to the
    /// scores for the choice does not count in the shares.
    fn choose(&mut self, shape: &RoutingShape) {
        self.chosen.resize_with(shape.n_expert, Chosen::default);
        for chosen in &mut self.chosen {
            chosen.rows.clear();
            chosen.shares.clear();
        }
        for (row, scores) in self.scores.chunks_exact_mut(shape.n_expert).enumerate() {
            score(scores, shape.scoring);
            self.ranks.clear();
            self.ranks.extend_from_slice(scores);
            self.ranks.iter_mut().zip(&self.choice_bias).for_each(|(rank, bias)| *rank += bias);
            self.order.clear();
            self.order.extend(0..shape.n_expert as u32);
            if let Some(groups) = shape.groups {
                let len = shape.n_expert / groups.n_group;
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
            let used = &self.order[..shape.n_used];
            if shape.scoring == Scoring::SoftmaxOfUsed {
                let best = scores[used[0] as usize];
                used.iter()
                    .for_each(|&expert| scores[expert as usize] = (scores[expert as usize] - best).exp());
            }
            let normalized = shape.normalize || shape.scoring == Scoring::SoftmaxOfUsed;
            let sum: f32 = used.iter().map(|&expert| scores[expert as usize]).sum();
            let factor = if normalized { shape.scale / sum.max(MIN_SUM) } else { shape.scale };
            for &expert in used {
                let chosen = &mut self.chosen[expert as usize];
                chosen.rows.push(row as u32);
                chosen.shares.push(scores[expert as usize] * factor);
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

pub(crate) fn sigmoid(x: f32) -> f32 {
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

    const EXPERTS: RoutingShape = RoutingShape {
        n_expert: 3,
        n_used: 2,
        scoring: Scoring::Softmax,
        normalize: true,
        scale: 1.0,
        groups: None,
    };

    fn close(a: f32, b: f32) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }

    /// The rows of each expert, and its share in the first of them.
    fn chosen(routing: &Routing) -> Vec<(&[u32], f32)> {
        let share = |chosen: &Chosen| chosen.shares.first().copied().unwrap_or(0.0);
        routing.chosen.iter().map(|chosen| (chosen.rows.as_slice(), share(chosen))).collect()
    }

    #[test]
    fn a_bias_moves_the_choice_and_not_the_shares() {
        let choice_bias = vec![0.0, -9.0, 0.0];
        let mut routing = Routing { scores: vec![0.0, 1.0, -1.0], choice_bias, ..Routing::default() };
        let config = RoutingShape { scoring: Scoring::Sigmoid, normalize: false, scale: 2.0, ..EXPERTS };
        routing.choose(&config);
        let found = chosen(&routing);
        assert_eq!([found[0].0, found[1].0, found[2].0], [&[0][..], &[], &[0]]);
        close(found[0].1, 1.0);
        close(found[2].1, 2.0 / (1.0 + 1_f32.exp()));
    }

    #[test]
    fn softmax_of_the_used_leaves_the_others_out() {
        let mut routing = Routing { scores: [1.0_f32, 9.0, 3.0].map(f32::ln).to_vec(), ..Routing::default() };
        let config = RoutingShape { scoring: Scoring::SoftmaxOfUsed, normalize: false, ..EXPERTS };
        routing.choose(&config);
        close(chosen(&routing)[1].1, 0.75);
        close(chosen(&routing)[2].1, 0.25);
    }

    #[test]
    fn experts_come_from_the_best_groups() {
        let groups = Some(crate::backend::ExpertGroups { n_group: 2, n_used: 1 });
        let config = RoutingShape { n_expert: 4, groups, scoring: Scoring::Sigmoid, ..EXPERTS };
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
        close(routing.chosen[1].shares[0], 0.6);
        close(routing.chosen[2].shares[0], 0.4);
        close(routing.chosen[0].shares[0], 0.8);
        close(routing.chosen[1].shares[1], 0.2);
    }
}
