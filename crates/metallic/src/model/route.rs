//! Which stage computes each part of a model. That may differ for long prompts: what is multiplied with many rows may be worth
//! bringing to a faster place, where one row is not.

use super::config::ModelConfig;
use super::part::{Part, Parts, segments};
use super::role::Role;

/// The stage of each part, by what is read: 0 is the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Routes {
    usual: Vec<usize>,
    long_prompts: Option<LongPrompts>,
}

/// Where long prompts go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LongPrompts {
    /// Tokens that a prompt has at least.
    from: usize,
    /// The stage that computes all networks which the CPU has on the usual route.
    stage: usize,
    stage_of: Vec<usize>,
}

/// A way through the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Usual,
    LongPrompt,
}

impl Routes {
    /// One for everything.
    pub(crate) fn one(stage_of: Vec<usize>) -> Self {
        Self { usual: stage_of, long_prompts: None }
    }

    /// The same, but that prompts of at least `from` tokens have those networks computed by `stage` which the CPU has, if it has
    /// any.
    pub(crate) fn with_networks_lent(self, config: &ModelConfig, from: usize, stage: usize) -> Self {
        let n_layers = config.layers.len();
        let is_lent = |part: usize, of: usize| match Part::of(part, n_layers) {
            Part::Network(layer) => of == 0 && config.layers[layer].ffn.is_some(),
            Part::Embedding | Part::Mixer(_) | Part::Head => false,
        };
        let lent = self.usual.iter().enumerate();
        let stage_of: Vec<usize> =
            lent.map(|(part, of)| if is_lent(part, *of) { stage } else { *of }).collect();
        let long_prompts = (stage_of != self.usual).then_some(LongPrompts { from, stage, stage_of });
        Self { long_prompts, ..self }
    }

    /// Tokens that a prompt has at least which goes another way; `None` if none does.
    pub(crate) fn long_prompts_from(&self) -> Option<usize> {
        self.long_prompts.as_ref().map(|long| long.from)
    }

    /// The way of what has this role.
    pub(crate) fn of(&self, role: Role) -> Route {
        match (role, &self.long_prompts) {
            (Role::Prompt { len }, Some(long)) if len >= long.from => Route::LongPrompt,
            _ => Route::Usual,
        }
    }

    /// Those that there are, and the stage of each part.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Route, &[usize])> {
        let long = self.long_prompts.as_ref().map(|long| (Route::LongPrompt, &long.stage_of[..]));
        std::iter::once((Route::Usual, &self.usual[..])).chain(long)
    }

    /// The stage of each part on the usual route.
    pub(crate) fn usual(&self) -> &[usize] {
        &self.usual
    }

    /// The parts that a stage computes for long prompts alone.
    pub(crate) fn lent_to(&self, stage: usize) -> Parts {
        let long = self.long_prompts.as_ref().filter(|long| long.stage == stage);
        let is_lent = |part: usize| long.is_some_and(|long| long.stage_of[part] != self.usual[part]);
        Parts::those((0..self.usual.len()).map(is_lent))
    }

    /// All parts that a stage computes.
    pub(crate) fn parts(&self, stage: usize) -> Parts {
        Parts::of_stage(&self.usual, stage).and(&self.lent_to(stage))
    }

    /// The parts before which rows cross from one stage to another.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = usize> {
        let segments = self.each().flat_map(|(_, stage_of)| segments(stage_of).into_iter().skip(1));
        segments.map(|segment| segment.parts.start)
    }
}

#[cfg(test)]
mod tests {
    use metallic_gguf::Gguf;

    use super::*;
    use crate::model::part::{n_parts, network_of};
    use crate::testing::tiny_model;

    #[test]
    fn long_prompts_alone_borrow_the_networks_of_the_cpu() {
        let bytes = tiny_model().unwrap();
        let config = crate::model::read_config(&Gguf::parse(&bytes).unwrap()).unwrap();
        let n_layers = config.layers.len();
        // The last layer and the head are on a device.
        let mut stage_of = vec![0; n_parts(n_layers)];
        stage_of[2 * n_layers - 1..].fill(1);
        let one = Routes::one(stage_of.clone());
        assert_eq!((one.of(Role::Prompt { len: usize::MAX }), one.long_prompts_from()), (Route::Usual, None));
        let n_cuts = one.cuts().count();
        assert_eq!(n_cuts, 1);

        let both = one.with_networks_lent(&config, 64, 1);
        assert_eq!(both.long_prompts_from(), Some(64));
        assert_eq!(both.of(Role::Generated), Route::Usual);
        assert_eq!(both.of(Role::Prompt { len: 63 }), Route::Usual);
        assert_eq!(both.of(Role::Prompt { len: 64 }), Route::LongPrompt);
        let lent = both.lent_to(1);
        let networks: Vec<usize> = (0..n_layers - 1).map(network_of).collect();
        assert!((0..n_parts(n_layers)).all(|part| lent.has(part) == networks.contains(&part)));
        assert_eq!(both.lent_to(0), Parts::those(vec![false; n_parts(n_layers)].into_iter()));
        assert_eq!(both.parts(0), Parts::of_stage(&stage_of, 0));
        assert!(both.parts(1).has(networks[0]) && both.parts(1).has_head());
        // On the other route into each network, and out of all but the last of them.
        assert_eq!(both.cuts().count(), n_cuts + 2 * networks.len() - 1);

        let all_there = Routes::one(vec![1; n_parts(n_layers)]).with_networks_lent(&config, 64, 1);
        assert_eq!(all_there.long_prompts_from(), None);
    }
}
