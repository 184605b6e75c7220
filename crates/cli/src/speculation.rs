//! What guesses for an engine, as the flags say: look-up, or a smaller model that takes its part of the budget.

use std::path::{Path, PathBuf};

use metallic::engine::{Draft, Lookup, Proposer, Speculation, Stats};
use metallic::model::ModelConfig;
use metallic::{Engine, Error, MemoryBudget};

use crate::args::{EngineArgs, RateArgs, Spec, SpecArgs};
use crate::failure::{Failure, Kind, Result};
use crate::fetch::Fetcher;
use crate::model_file::{self, Planned, SMALLER_CONTEXT, kind_of};
use crate::terminal::{Terminal, human_bytes};

/// What is to guess, before the model is loaded that it guesses for.
pub(crate) struct Guessing<'a> {
    args: &'a SpecArgs,
    draft: Option<DraftModel>,
}

/// A smaller model that guesses.
struct DraftModel {
    engine: EngineArgs,
    planned: Planned,
}

/// The file of the draft model, if one is to guess, downloaded if need be.
pub(crate) fn draft_file(args: &SpecArgs, fetcher: &Fetcher<'_>) -> Result<Option<PathBuf>> {
    match (args.spec, &args.draft.model_draft) {
        (Spec::Auto | Spec::Draft, Some(name)) => Ok(Some(fetcher.locate(name)?.path)),
        (Spec::Auto | Spec::Lookup | Spec::Off, None) => Ok(None),
        (Spec::Draft, None) => {
            let what = "--spec draft needs a model that guesses";
            Err(Failure::new(Kind::Usage, what).advice("name it with --model-draft"))
        }
        (Spec::Lookup | Spec::Off, Some(_)) => {
            let what = "--model-draft names a model that guesses, and --spec asks for none";
            Err(Failure::new(Kind::Usage, what).advice("leave out one of them"))
        }
    }
}

impl<'a> Guessing<'a> {
    /// Plans the [draft model](draft_file), if there is one, in a part of the budget.
    pub(crate) fn plan(
        args: &'a SpecArgs,
        draft: Option<&Path>,
        engine: &EngineArgs,
        budget: Option<MemoryBudget>,
        terminal: &Terminal,
    ) -> Result<Self> {
        let Some(path) = draft else { return Ok(Self { args, draft: None }) };
        let (file, given) = (model_file::open(path)?, RateArgs::default());
        let engine = EngineArgs { guesses: false, ..engine.clone() };
        let planned = Planned::new(file, &engine, None, SMALLER_CONTEXT, &given, terminal)?;
        let (takes, half) =
            (planned.plan.total_bytes(), budget.map_or(u64::MAX, |budget| budget.ram_bytes / 2));
        if takes > half {
            let what = format!(
                "the draft model takes {}, more than half of the budget, {}",
                human_bytes(takes),
                human_bytes(half)
            );
            return Err(Failure::new(Kind::General, what)
                .advice("choose a smaller one, a smaller -c, or allow more with --ram"));
        }
        Ok(Self { args, draft: Some(DraftModel { engine, planned }) })
    }

    /// What the draft model takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.draft.as_ref().map_or(0, |draft| draft.planned.plan.total_bytes())
    }

    /// Whether answers are looked up, which takes memory beside the model.
    pub(crate) fn looks_up(&self) -> bool {
        self.args.spec != Spec::Off && self.draft.is_none()
    }

    /// What is left of a budget for the model that is guessed for.
    pub(crate) fn leaves(&self, budget: Option<MemoryBudget>) -> Option<MemoryBudget> {
        budget.map(|budget| MemoryBudget { ram_bytes: budget.ram_bytes - self.bytes(), ..budget })
    }

    /// Has an engine guess.
    pub(crate) fn begin(self, engine: &mut Engine, terminal: &Terminal) -> Result<()> {
        if self.args.spec == Spec::Off {
            return Ok(());
        }
        let cannot =
            |error: Error| Failure::new(kind_of(&error), "can't guess what comes next").because(error);
        let is_asked_for = self.args.spec != Spec::Auto || self.draft.is_some();
        if !can_guess(engine.model().config()) {
            return if is_asked_for { Err(cannot(Error::NoSpeculation)) } else { Ok(()) };
        }
        let proposer: Box<dyn Proposer> = match self.draft {
            Some(DraftModel { engine: args, planned }) => {
                let tokenizer = model_file::tokenizer(planned.file())?;
                let model = planned.load(&args, terminal)?;
                let draft = Draft::new(model, &tokenizer, engine.tokenizer(), self.args.draft.draft_p_min);
                Box::new(draft.map_err(|error| cannot(error).advice("choose one of the same family"))?)
            }
            None => {
                let model = engine.model();
                Box::new(Lookup::new(model).map_err(cannot)?)
            }
        };
        let (n_max, n_min) = (self.args.draft.draft_max.into(), self.args.draft.draft_min.into());
        engine.speculate(Speculation { n_max, n_min, ..Speculation::new(proposer) }).map_err(cannot)
    }
}

/// What guesses came to, if there were any.
pub(crate) fn line(stats: &Stats) -> Option<String> {
    let &Stats { n_guessed, n_accepted, .. } = stats;
    let (tokens, rows) = stats.tokens_per_pass().zip(stats.rows_per_pass())?;
    let share = 100.0 * n_accepted as f64 / n_guessed as f64;
    (n_guessed > 0).then(|| {
        format!("guesses: {n_guessed}, {n_accepted} right ({share:.0} %); {tokens:.2} tokens and {rows:.2} rows a pass")
    })
}

/// Whether what is wrong of a guess can be taken back.
pub(crate) fn can_guess(config: &ModelConfig) -> bool {
    config.can_be_cut_back()
}
