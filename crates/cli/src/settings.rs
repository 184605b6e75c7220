//! How answers are made, as flags say at first and `/set` in a chat later: the same names, values and checks.

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches as _};
use serde::Serialize;
use serde_json::Value;

use crate::args::AnswerArgs;
use crate::failure::{Failure, Kind, Result};
use crate::sampling_args::SamplingArgs;

/// The flags that can be changed between answers.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) answer: AnswerArgs,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) sampling: SamplingArgs,
}

impl Settings {
    /// Changes what the flag of this name says. A list is replaced.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let flag = self.find(name)?;
        let flag = flag.get_long().unwrap_or_default();
        let matches = command().try_get_matches_from([format!("--{flag}={value}")]);
        let mut changed = self.clone();
        matches.and_then(|matches| changed.update_from_arg_matches(&matches)).map_err(|error| {
            // The first paragraph says what is wrong, the others how a command line is written.
            let text = error.to_string();
            let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            Failure::new(Kind::Usage, what)
        })?;
        *self = changed;
        Ok(())
    }

    /// What there is, a line each.
    pub(crate) fn table(&self) -> String {
        let command = command();
        // The first words say what it is, the rest what its values do.
        let brief =
            |help: &str| help.split([':', ';', ',', '[', '(']).next().unwrap_or_default().trim().to_owned();
        let lines: Vec<String> = command.get_arguments().map(|arg| self.line(arg, brief)).collect();
        lines.join("\n")
    }

    /// All that there is to say of one.
    pub(crate) fn row(&self, name: &str) -> Result<String> {
        Ok(self.line(&self.find(name)?, str::to_owned))
    }

    fn find(&self, name: &str) -> Result<Arg> {
        let name = name.trim_start_matches('-').replace('_', "-");
        let is_named = |arg: &&Arg| {
            let mut names = arg.get_all_aliases().unwrap_or_default();
            names.extend(arg.get_long());
            names.contains(&name.as_str()) || arg.get_short().is_some_and(|short| short.to_string() == name)
        };
        let command = command();
        let found = command.get_arguments().find(is_named).cloned();
        found.ok_or_else(|| {
            Failure::new(Kind::Usage, format!("there is no setting {name:?}"))
                .advice("/set lists what there is")
        })
    }

    fn line(&self, arg: &Arg, help_of: impl Fn(&str) -> String) -> String {
        let values = serde_json::to_value(self).unwrap_or_default();
        let value = match &values[arg.get_id().as_str()] {
            Value::Null => "default".to_owned(),
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            other => other.to_string(),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        format!("{:20} {value:10} {}", arg.get_id().as_str(), help_of(&help))
    }
}

/// The flags as `/set` takes them: each by itself, and those without a value with one.
fn command() -> Command {
    let command = Settings::augment_args(Command::new("/set").no_binary_name(true).disable_help_flag(true));
    command.mut_args(|arg| {
        let arg = arg.default_value(Resettable::Reset);
        match arg.get_action() {
            ArgAction::SetTrue => {
                arg.action(ArgAction::Set).num_args(1).value_parser(BoolishValueParser::new())
            }
            _ => arg,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn given(args: &[&str]) -> Settings {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        Line::parse_from(std::iter::once(&"test").chain(args)).settings
    }

    #[test]
    fn one_setting_changes_and_the_others_stay() {
        let mut settings = given(&["--top-k", "7", "-n", "5", "--stop", "a", "--ignore-eos"]);
        for (name, value) in [
            ("temp", "0.5"),
            ("top_p", "0.25"),
            ("--min-p", "0"),
            ("s", "3"),
            ("top_nsigma", "2"),
            ("presence-penalty", "-1"),
            ("ignore_eos", "off"),
            ("stats", "on"),
        ] {
            settings.set(name, value).unwrap();
        }
        assert_eq!((settings.sampling.temp, settings.sampling.top_k), (Some(0.5), Some(7)));
        assert_eq!((settings.sampling.top_p, settings.sampling.presence_penalty), (Some(0.25), Some(-1.0)));
        assert_eq!((settings.answer.n_predict, &settings.answer.stop[..]), (5, &["a".to_owned()][..]));
        assert_eq!(settings.sampling.top_n_sigma, Some(2.0));
        assert!(settings.answer.stats && !settings.answer.ignore_eos);
        settings.set("n_predict", "-1").unwrap();
        settings.set("stop", "two words").unwrap();
        assert_eq!(
            (settings.answer.n_predict, &settings.answer.stop[..]),
            (-1, &["two words".to_owned()][..])
        );
    }

    #[test]
    fn what_is_wrong_is_said_and_changes_nothing() {
        let mut settings = given(&[]);
        let error = settings.set("temp", "-1").unwrap_err().to_string();
        assert!(error.contains("'-1'") && error.contains("0 or more") && !error.contains("help"), "{error}");
        assert!(settings.set("ctx_size", "5").unwrap_err().to_string().contains("/set lists"));
        assert_eq!(settings.sampling.temp, None);
    }

    #[test]
    fn the_table_has_every_setting_and_its_value() {
        let settings = given(&["--top-k", "7", "--logit-bias", "5-inf"]);
        let table = settings.table();
        for name in ["n_predict", "stop", "temp", "seed", "xtc_threshold", "mirostat_ent"] {
            assert!(table.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 130), "{table}");
        assert!(settings.row("top-k").unwrap().starts_with("top_k                7 "));
        assert!(settings.row("logit_bias").unwrap().contains("[\"5-inf\"]"));
        assert!(settings.row("temp").unwrap().contains(" default "));
    }
}
