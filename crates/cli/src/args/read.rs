//! How a command line is read: what clap does not do by itself.

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, TryMapValueParser, TypedValueParser, ValueParserFactory};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ColorChoice, Command, CommandFactory, FromArgMatches, ValueEnum};

use super::Cli;
use crate::fetch::ModelName;

impl Cli {
    /// Reads a command line. What follows a flag that takes a value is that value, even if it begins with a dash,
    /// and of a flag that is repeated the last one counts, but for those that collect.
    pub(crate) fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        if let Some((flag, instead)) = habit(args) {
            return Err(
                Self::command().error(ErrorKind::UnknownArgument, format!("there is no {flag}: {instead}"))
            );
        }
        let args = &spelled_out(args);
        let command = with_values_as_they_are(Self::command()).args_override_self(true);
        let matches = command.clone().try_get_matches_from(args);
        Self::from_arg_matches(&matches.map_err(|error| without_idle_tip(error, command, args))?)
    }
}

/// Flags of llama.cpp's that would be read as several short ones, and what to use instead.
const HABITS: [(&str, &str); 3] = [
    ("-hf", "hf:OWNER/REPO[:QUANT] is a MODEL"),
    ("-hfr", "hf:OWNER/REPO[:QUANT] is a MODEL"),
    ("-cnv", "`metallic chat` is the conversation"),
];

/// Flags of llama.cpp's that people know with one dash, which would be read as several flags.
const ONE_DASH: [(&str, &str); 3] =
    [("-ngl", "--gpu-layers"), ("-md", "--model-draft"), ("-np", "--parallel")];

/// Writes those with two. After a flag that takes a value one is that value.
fn spelled_out(args: &[OsString]) -> Vec<OsString> {
    let command = Cli::command();
    let takes_value = |flag: &str| {
        let mut all = command.get_subcommands().flat_map(Command::get_arguments);
        let is_it = |arg: &Arg| {
            let long = flag.strip_prefix("--").is_some_and(|name| arg.get_long() == Some(name));
            let short = flag
                .strip_prefix('-')
                .is_some_and(|name| arg.get_short().is_some_and(|c| name == c.to_string()));
            long || short
        };
        all.any(|arg| arg.get_action().takes_values() && is_it(arg))
    };
    let n_flags = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let spelled = |i: usize| {
        let before = i.checked_sub(1).and_then(|before| args[before].to_str()).unwrap_or_default();
        let flag = ONE_DASH.iter().find(|(flag, _)| i < n_flags && args[i] == *flag && !takes_value(before));
        flag.map_or_else(|| args[i].clone(), |(_, long)| long.into())
    };
    (0..args.len()).map(spelled).collect()
}

/// A flag of another program's that is no value of the flag before it.
fn habit(args: &[OsString]) -> Option<(&'static str, &'static str)> {
    let args = args.iter().map(|arg| arg.to_str().unwrap_or_default()).take_while(|arg| *arg != "--");
    let with_before = [""].into_iter().chain(args.clone()).zip(args);
    with_before
        .filter(|(before, _)| !before.starts_with('-'))
        .find_map(|(_, arg)| HABITS.into_iter().find(|(flag, _)| *flag == arg))
}

fn with_values_as_they_are(command: Command) -> Command {
    let takes_any = |arg: Arg| {
        let is_flag_with_value = !arg.is_positional() && arg.get_action().takes_values();
        if is_flag_with_value { arg.allow_hyphen_values(true) } else { arg }
    };
    command.mut_args(takes_any).mut_subcommands(with_values_as_they_are)
}

/// The error without clap's advice to put `--` before an argument, if the command would take it no better then.
fn without_idle_tip(mut error: clap::Error, command: Command, args: &[OsString]) -> clap::Error {
    if let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) {
        let begins_so = |arg: &OsString| arg.as_encoded_bytes().starts_with(refused.as_bytes());
        let mut advised = args.to_vec();
        if let Some(place) = advised.iter().position(begins_so) {
            advised.insert(place, "--".into());
        }
        if command.try_get_matches_from(advised).is_err() {
            error.remove(ContextKind::Suggested);
        }
    }
    error
}

/// The choice of colours on a command line that may be wrong elsewhere: the last one.
pub(crate) fn colour_choice(args: &[OsString]) -> ColorChoice {
    let args = args.iter().map(|arg| arg.to_str().unwrap_or_default()).take_while(|arg| *arg != "--");
    let with_next = args.clone().zip(args.skip(1).map(Some).chain([None]));
    let values = with_next
        .filter_map(|(arg, next)| if arg == "--color" { next } else { arg.strip_prefix("--color=") });
    values.filter_map(|value| ColorChoice::from_str(value, false).ok()).last().unwrap_or_default()
}

/// A model's name may be a path, and a path need not be UTF-8.
impl ValueParserFactory for ModelName {
    type Parser = TryMapValueParser<OsStringValueParser, fn(OsString) -> Result<ModelName, String>>;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().try_map(ModelName::from_os)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::shared::GpuLayers;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn every_flag_takes_what_follows_it() {
        fn check(command: &Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
                let takes_value = arg.get_action().takes_values();
                assert_eq!(arg.is_allow_hyphen_values_set(), takes_value, "{} {arg}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&with_values_as_they_are(Cli::command()));
    }

    #[test]
    fn advice_that_does_not_help_is_not_given() {
        for (line, helps) in [
            ("metallic run -5 degrees", true),
            ("metallic tokenize m -5", true),
            ("metallic inspect m -5", false),
            ("metallic bench m -x", false),
            ("metallic models -5", false),
        ] {
            let error = Cli::read(&words(line)).expect_err(line).to_string();
            assert_eq!(error.contains("use '-- "), helps, "{line}: {error}");
        }
    }

    #[test]
    fn habits_from_elsewhere_are_answered() {
        for (line, instead) in
            [("metallic run -hf o/r hello", "hf:OWNER/REPO"), ("metallic run m hi -cnv", "metallic chat")]
        {
            let error = Cli::read(&words(line)).expect_err(line).to_string();
            assert!(error.contains(instead) && error.contains("there is no -"), "{line}: {error}");
        }
        for line in ["metallic run m -p -hf", "metallic run m --stop -cnv x", "metallic run m -- -ngl"] {
            Cli::read(&words(line)).expect(line);
        }
        let layers = |line: &str| match Cli::read(&words(line)).expect(line).command {
            crate::args::Command::Run(args) => args.session.engine.compute.gpu_layers,
            other => panic!("{other:?}"),
        };
        assert_eq!(layers("metallic run m --mlock -ngl 99"), GpuLayers::Last(99));
        assert_eq!(layers("metallic run m -p -ngl"), GpuLayers::Auto);
    }

    #[test]
    fn the_choice_of_colours_is_found_in_a_wrong_line() {
        for (line, choice) in [
            ("metallic run --nonsense", ColorChoice::Auto),
            ("metallic --color never run --nonsense", ColorChoice::Never),
            ("metallic run --nonsense --color=always", ColorChoice::Always),
            ("metallic run --color never --color=always --color sometimes", ColorChoice::Always),
            ("metallic run --color never -- --color always", ColorChoice::Never),
            ("metallic run --color", ColorChoice::Auto),
        ] {
            assert_eq!(colour_choice(&words(line)), choice, "{line}");
        }
    }
}
