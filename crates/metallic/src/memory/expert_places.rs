//! Which experts of a tensor stay in memory, where the tensor is swapped in: integers only.
//!
//! Which experts a token is sent to is known only after the layer's router, but some are wanted more often than
//! others. So a tensor of experts has places for some of them, and what a place holds changes with use. Tensors have
//! places of their own, because an expert is as large as any other of its tensor, but not of others. Those of a layer
//! see the same uses, so they make the same choices.
//!
//! An expert without a place goes through a slot of the stream and costs no more than with one. So those of one
//! pass never push each other out: a prompt, which wants nearly all, finds as many as there are places for.

use std::fmt;
use std::str::FromStr;

/// Which expert gives way to which, when there is no free place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpertPolicy {
    /// The one that has not been used for the longest time, to any other.
    Lru,
    /// The one used least often, to any other. Old uses count less and less.
    #[default]
    Lfu,
    /// None: those that came first stay.
    Static,
}

/// After so many uses for each expert on average, all counts are halved, so that the experts of a new topic soon count as
/// much as those of the old one: the aging of TinyLFU (Einziger, Friedman, Manes 2017). Not its admission: an expert
/// that was just used is likely to be used again, even a rare one. Of 1 to 64, 8 found most in the traces of the tests.
const USES_TO_HALVE: u64 = 8;

/// A use counts for so much, so that halving leaves something of it.
const USE: u64 = 1 << 8;

/// What an expert has, in the pass that wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// A place that holds it.
    Held(usize),
    /// A place to be filled.
    ToFill(usize),
    /// No place.
    None,
}

/// The places of one tensor.
pub struct Places {
    policy: ExpertPolicy,
    experts: Vec<Expert>,
    /// The expert of each place.
    held: Vec<Option<usize>>,
    /// The number of the current pass.
    pass: u64,
    n_uses: u64,
}

/// What is known of an expert.
#[derive(Clone, Copy, Default)]
struct Expert {
    place: Option<usize>,
    is_filled: bool,
    last_pass: u64,
    n_uses: u64,
}

impl Places {
    /// None of `n_experts` has one of `n_places` yet.
    pub fn new(policy: ExpertPolicy, n_experts: usize, n_places: usize) -> Self {
        let (experts, held) = (vec![Expert::default(); n_experts], vec![None; n_places]);
        Self { policy, experts, held, pass: 0, n_uses: 0 }
    }

    /// Experts of the tensor.
    pub fn n_experts(&self) -> usize {
        self.experts.len()
    }

    /// Places for them.
    pub fn n_places(&self) -> usize {
        self.held.len()
    }

    /// Begins a pass that wants these experts, each with the number of rows that are sent to it. Returns how many are
    /// held and how many are not.
    pub fn begin(&mut self, wanted: impl Iterator<Item = (usize, usize)> + Clone) -> (u64, u64) {
        self.pass += 1;
        let (mut n_held, mut n_missing) = (0, 0);
        for (expert, n_rows) in wanted.clone() {
            let uses = n_rows as u64 * USE;
            let expert = &mut self.experts[expert];
            expert.last_pass = self.pass;
            expert.n_uses += uses;
            self.n_uses += uses;
            *(if expert.is_filled { &mut n_held } else { &mut n_missing }) += 1;
        }
        while self.n_uses >= USES_TO_HALVE * USE * self.experts.len() as u64 {
            self.experts.iter_mut().for_each(|expert| expert.n_uses /= 2);
            self.n_uses = self.experts.iter().map(|expert| expert.n_uses).sum();
        }
        for (expert, _) in wanted {
            if self.experts[expert].place.is_none()
                && let Some(place) = self.find_place()
            {
                if let Some(former) = self.held[place].replace(expert) {
                    (self.experts[former].place, self.experts[former].is_filled) = (None, false);
                }
                self.experts[expert].place = Some(place);
            }
        }
        (n_held, n_missing)
    }

    /// A free place, or that of an expert which this pass does not want and which gives way.
    fn find_place(&self) -> Option<usize> {
        let idle = |holder: &usize| self.experts[*holder].last_pass < self.pass;
        let free = self.held.iter().position(Option::is_none);
        let holders = self.held.iter().flatten().copied().filter(idle);
        let gives_way = || match self.policy {
            ExpertPolicy::Lru => holders.min_by_key(|holder| self.experts[*holder].last_pass),
            ExpertPolicy::Lfu => {
                holders.min_by_key(|holder| (self.experts[*holder].n_uses, self.experts[*holder].last_pass))
            }
            ExpertPolicy::Static => None,
        };
        free.or_else(|| self.experts[gives_way()?].place)
    }

    /// What an expert has.
    pub fn residence(&self, expert: usize) -> Residence {
        match self.experts[expert] {
            Expert { place: Some(place), is_filled: true, .. } => Residence::Held(place),
            Expert { place: Some(place), .. } => Residence::ToFill(place),
            Expert { place: None, .. } => Residence::None,
        }
    }

    /// Says that an expert's place holds it now.
    pub fn filled(&mut self, expert: usize) {
        self.experts[expert].is_filled = true;
    }

    /// Frees the places that were to be filled: for a pass that ended early.
    pub fn forget(&mut self) {
        for held in &mut self.held {
            if let Some(expert) = held.take_if(|expert| !self.experts[*expert].is_filled) {
                self.experts[expert].place = None;
            }
        }
    }
}

/// A tensor of experts that is swapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpertTensor {
    pub(crate) layer: usize,
    pub(crate) n_experts: usize,
    pub(crate) expert_bytes: u64,
}

/// Shares `capacity` between tensors: a place for an expert of each tensor of each layer, then another, as long as there is
/// room. Returns the places of each.
pub(crate) fn share(tensors: &[ExpertTensor], capacity: u64) -> Vec<usize> {
    let mut places = vec![0; tensors.len()];
    let n_layers = tensors.iter().map(|tensor| tensor.layer + 1).max().unwrap_or(0);
    let n_rounds = tensors.iter().map(|tensor| tensor.n_experts).max().unwrap_or(0);
    let mut left = capacity;
    for (round, layer) in (0..n_rounds).flat_map(|round| (0..n_layers).map(move |layer| (round, layer))) {
        let grows = |tensor: &ExpertTensor| tensor.layer == layer && tensor.n_experts > round;
        let bytes = tensors.iter().filter(|tensor| grows(tensor)).map(|tensor| tensor.expert_bytes).sum();
        let Some(rest) = left.checked_sub(bytes) else { break };
        left = rest;
        tensors.iter().zip(&mut places).filter(|(tensor, _)| grows(tensor)).for_each(|(_, n)| *n += 1);
    }
    places
}

impl ExpertPolicy {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Lru, Self::Lfu, Self::Static];

    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Static => "static",
        }
    }
}

impl fmt::Display for ExpertPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ExpertPolicy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|policy| policy.name() == name);
        found.ok_or_else(|| format!("there is no policy {name:?}: choose one of lru, lfu, static"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a pass to its end.
    fn pass(places: &mut Places, wanted: &[usize]) -> (u64, u64) {
        let found = places.begin(wanted.iter().map(|expert| (*expert, 1)));
        fill(places);
        found
    }

    fn fill(places: &mut Places) {
        for expert in 0..places.experts.len() {
            if let Residence::ToFill(_) = places.residence(expert) {
                places.filled(expert);
            }
        }
    }

    fn held(places: &Places) -> Vec<usize> {
        let is_held = |expert: &usize| matches!(places.residence(*expert), Residence::Held(_));
        (0..places.experts.len()).filter(is_held).collect()
    }

    #[test]
    fn the_policies_by_hand() {
        for (policy, expected) in [
            // 0 is used twice, then 1, 2 and 3 once each.
            (ExpertPolicy::Lru, vec![2, 3]),
            (ExpertPolicy::Lfu, vec![0, 3]),
            (ExpertPolicy::Static, vec![0, 1]),
        ] {
            let mut places = Places::new(policy, 4, 2);
            let uses = [0, 0, 1, 2, 3].map(|expert| pass(&mut places, &[expert]));
            assert_eq!(uses, [(0, 1), (1, 0), (0, 1), (0, 1), (0, 1)]);
            assert_eq!(held(&places), expected, "{policy}");
        }
    }

    #[test]
    fn those_of_one_pass_never_push_each_other_out() {
        for policy in ExpertPolicy::ALL {
            let mut places = Places::new(policy, 6, 2);
            assert_eq!(pass(&mut places, &[0, 1, 2, 3, 4, 5]), (0, 6));
            let stay = held(&places);
            assert_eq!(stay, [0, 1]);
            for _ in 0..3 {
                assert_eq!(pass(&mut places, &[0, 1, 2, 3, 4, 5]), (2, 4), "{policy}");
                assert_eq!(held(&places), stay);
            }
        }
    }

    #[test]
    fn a_pass_that_ended_early_leaves_nothing_half_filled() {
        let mut places = Places::new(ExpertPolicy::Lru, 4, 2);
        pass(&mut places, &[0, 1]);
        places.begin([(1, 1), (2, 1)].into_iter());
        assert_eq!(places.residence(2), Residence::ToFill(0));
        assert_eq!(places.residence(0), Residence::None);
        places.forget();
        assert_eq!(held(&places), [1]);
        assert_eq!(places.residence(2), Residence::None);
        assert_eq!(pass(&mut places, &[2, 1]), (1, 1));
        assert_eq!(held(&places), [1, 2]);
    }

    #[test]
    fn an_old_favourite_gives_way_in_the_end() {
        let mut places = Places::new(ExpertPolicy::Lfu, 8, 2);
        for _ in 0..1000 {
            pass(&mut places, &[0]);
        }
        let n_until = (0..1000).find(|_| {
            pass(&mut places, &[1]);
            pass(&mut places, &[2]);
            held(&places) == [1, 2]
        });
        assert!(n_until.is_some_and(|n| n > 1 && (n as u64) < 8 * USES_TO_HALVE), "{n_until:?}");
    }

    #[test]
    fn a_place_holds_one_expert_and_an_expert_has_one_place() {
        let mut random = Random(7);
        for policy in ExpertPolicy::ALL {
            for n_places in [0, 1, 3, 8, 12] {
                let mut places = Places::new(policy, 12, n_places);
                for _ in 0..500 {
                    let before = held(&places);
                    let wanted: Vec<usize> = (0..12).filter(|_| random.below(3) == 0).collect();
                    let n_found = wanted.iter().filter(|expert| before.contains(expert)).count() as u64;
                    places.begin(wanted.iter().map(|expert| (*expert, 1 + expert % 3)));
                    let stayed = wanted.iter().filter(|expert| before.contains(expert));
                    assert!(stayed.clone().all(|expert| held(&places).contains(expert)), "{policy}");
                    assert_eq!(stayed.count() as u64, n_found);
                    if random.below(5) == 0 {
                        places.forget();
                    }
                    fill(&mut places);
                    let mut in_places: Vec<usize> = places.held.iter().flatten().copied().collect();
                    in_places.sort_unstable();
                    assert_eq!(in_places, held(&places));
                    assert!(in_places.len() <= n_places);
                }
            }
        }
    }

    #[test]
    fn capacity_is_shared_evenly_and_more_of_it_takes_no_place_away() {
        let tensor = |layer, n_experts, expert_bytes| ExpertTensor { layer, n_experts, expert_bytes };
        let tensors = [tensor(0, 3, 10), tensor(0, 3, 14), tensor(1, 2, 20), tensor(2, 3, 10)];
        let total: u64 = tensors.iter().map(|tensor| tensor.n_experts as u64 * tensor.expert_bytes).sum();
        let mut before = vec![0; 4];
        for capacity in 0..=total {
            let places = share(&tensors, capacity);
            let bytes: u64 = tensors.iter().zip(&places).map(|(t, n)| *n as u64 * t.expert_bytes).sum();
            assert!(bytes <= capacity);
            assert_eq!(places[0], places[1], "tensors of a layer have as many each");
            assert!(before.iter().zip(&places).all(|(before, now)| before <= now), "at {capacity}");
            before = places;
        }
        assert_eq!(before, [3, 3, 2, 3]);
        assert_eq!(share(&tensors, 43), [1, 1, 0, 0]);
        assert!(share(&[], 100).is_empty());
    }

    /// Numerical Recipes' linear congruential generator.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }

        fn unit(&mut self) -> f64 {
            self.below(1 << 30) as f64 / f64::from(1 << 30)
        }
    }

    const N_EXPERTS: usize = 96;
    const N_USED: usize = 8;

    /// How the tokens of a trace choose experts.
    #[derive(Clone, Copy, Debug)]
    struct Trace {
        /// Expert number `r` of a topic is chosen in proportion to `1 / (r + 1)^skew`.
        skew: f64,
        /// Tokens of a topic, after which the experts change their order.
        topic: usize,
        /// The chance that an expert of the token before is chosen again.
        again: f64,
    }

    /// The share of uses that find their expert, of 4000 tokens after a prompt of 256 that are read at once.
    fn hit_rate(policy: ExpertPolicy, n_places: usize, trace: Trace) -> f64 {
        let mut random = Random(1);
        let mut places = Places::new(policy, N_EXPERTS, n_places);
        let mut order: Vec<usize> = (0..N_EXPERTS).collect();
        let mut last: Vec<usize> = Vec::new();
        let (mut n_hits, mut n_misses) = (0, 0);
        let mut prompt = [0; N_EXPERTS];
        for token in 0..4256 {
            if token % trace.topic == 0 {
                (1..N_EXPERTS).for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
            }
            let mut chosen: Vec<usize> =
                last.iter().copied().filter(|_| random.unit() < trace.again).collect();
            while chosen.len() < N_USED {
                // Rejection: an expert by chance, kept with its probability.
                let rank = random.below(N_EXPERTS as u64) as usize;
                if random.unit() < ((rank + 1) as f64).powf(-trace.skew) && !chosen.contains(&order[rank]) {
                    chosen.push(order[rank]);
                }
            }
            chosen.sort_unstable();
            if token < 256 {
                chosen.iter().for_each(|expert| prompt[*expert] += 1);
            }
            if token == 255 {
                places.begin(prompt.iter().copied().enumerate().filter(|(_, n)| *n > 0));
                fill(&mut places);
            } else if token > 255 {
                let (hits, misses) = pass(&mut places, &chosen);
                (n_hits, n_misses) = (n_hits + hits, n_misses + misses);
            }
            last = chosen;
        }
        n_hits as f64 / (n_hits + n_misses) as f64
    }

    /// What `docs/memory.md` says of the policies; `--nocapture` shows the table.
    #[test]
    fn the_default_policy_is_the_best_or_close_to_it() {
        let even = Trace { skew: 0.0, topic: usize::MAX, again: 0.0 };
        let traces = [
            ("even", even),
            ("even, sticky", Trace { again: 0.3, ..even }),
            ("skewed", Trace { skew: 0.7, ..even }),
            ("skewed, sticky", Trace { skew: 0.7, again: 0.3, ..even }),
            ("topics of 500", Trace { skew: 0.7, topic: 500, again: 0.2 }),
            ("topics of 100", Trace { skew: 0.7, topic: 100, again: 0.2 }),
        ];
        for (name, trace) in traces {
            for n_places in [12, 24, 48] {
                let rates = ExpertPolicy::ALL.map(|policy| hit_rate(policy, n_places, trace));
                println!(
                    "{name:16} {n_places:3} of 96: lru {:.3}  lfu {:.3}  static {:.3}",
                    rates[0], rates[1], rates[2]
                );
                let best = rates.into_iter().fold(0.0, f64::max);
                assert!(rates[1] > best - 0.01, "{name} {n_places}: {rates:?}");
            }
        }
    }
}
