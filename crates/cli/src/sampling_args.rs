//! The flags that say how the next token is chosen.

use std::str::FromStr;

use clap::Args;
use metallic::sampling::{DryParams, MirostatParams, SamplingParams};
use metallic::text::Tokenizer;
use serde::{Serialize, Serializer};

use crate::failure::{Failure, Kind, Result};

/// Texts that DRY sees no repetition across, unless others are given: llama.cpp's.
const DRY_SEQUENCE_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];
/// What to write to have none.
const NO_BREAKERS: &str = "none";

/// How the next token is chosen. A flag that is absent leaves the default.
#[derive(Clone, Debug, Default, Args, Serialize)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Seed of the random numbers: the same seed gives the same text; -1 for a new one each time [default: -1]
    #[arg(short, long, value_name = "N")]
    pub(crate) seed: Option<Seed>,

    /// Temperature: 0 always takes the likeliest token, more is more surprising [default: 0.8, or what
    /// a short name brings]
    #[arg(long, alias = "temperature", value_name = "X", value_parser = non_negative)]
    pub(crate) temp: Option<f32>,

    /// Choose among the tokens whose logit is within this many standard deviations of the largest; 0 or less for
    /// all [default: -1]
    #[arg(long, value_name = "X", alias = "top-nsigma", value_parser = finite)]
    pub(crate) top_n_sigma: Option<f32>,

    /// Choose among this many of the likeliest tokens; 0 for all [default: 40]
    #[arg(long, value_name = "N")]
    pub(crate) top_k: Option<u32>,

    /// Choose among the likeliest tokens that together have this probability; 1 for all [default: 0.95]
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) top_p: Option<f32>,

    /// Drop tokens with less than this share of the likeliest token's probability; 0 for none [default: 0.05]
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) min_p: Option<f32>,

    /// Choose among the tokens of typical information that together have this probability; 1 for all [default: 1]
    #[arg(long, value_name = "P", alias = "typical-p", value_parser = probability)]
    pub(crate) typical: Option<f32>,

    /// How often to drop the likeliest tokens in favour of the next (XTC); 0 for never [default: 0]
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) xtc_probability: Option<f32>,

    /// Share of the probability that a token must have for XTC to drop it, if a less likely one has as much
    /// [default: 0.1]
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) xtc_threshold: Option<f32>,

    /// Version of Mirostat, which keeps the surprise of tokens near a target and takes the place of all other
    /// samplers but the temperature: 2, or 0 for off [default: 0]
    #[arg(long, value_name = "N", value_parser = mirostat)]
    pub(crate) mirostat: Option<Mirostat>,

    /// How fast Mirostat reacts [default: 0.1]
    #[arg(long, value_name = "X", value_parser = positive)]
    pub(crate) mirostat_lr: Option<f32>,

    /// Surprise that Mirostat aims at, in bits for each token [default: 5]
    #[arg(long, value_name = "X", value_parser = positive)]
    pub(crate) mirostat_ent: Option<f32>,

    /// Make tokens that occurred less likely; 1 for no change [default: 1]
    #[arg(long, value_name = "X", value_parser = positive)]
    pub(crate) repeat_penalty: Option<f32>,

    /// How many of the last tokens the penalties look at; 0 for none, -1 for all [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(-1..))]
    pub(crate) repeat_last_n: Option<i32>,

    /// Take this from the logit of every token that occurred [default: 0]
    #[arg(long, value_name = "X", value_parser = finite)]
    pub(crate) presence_penalty: Option<f32>,

    /// Take this from a token's logit for each time it occurred [default: 0]
    #[arg(long, value_name = "X", value_parser = finite)]
    pub(crate) frequency_penalty: Option<f32>,

    /// Strength of DRY, which keeps the model from repeating sequences; 0 for off [default: 0]
    #[arg(long, value_name = "X", value_parser = non_negative)]
    pub(crate) dry_multiplier: Option<f32>,

    /// By how much DRY's penalty grows with each token of a repetition [default: 1.75]
    #[arg(long, value_name = "X", value_parser = positive)]
    pub(crate) dry_base: Option<f32>,

    /// Longest repetition that DRY lets pass [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) dry_allowed_length: Option<u32>,

    /// How many of the last tokens DRY looks at; 0 for none, -1 for all [default: 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(-1..))]
    pub(crate) dry_penalty_last_n: Option<i32>,

    /// A text across which DRY sees no repetition; may be given several times, in place of line feed,
    /// colon, quotation mark and asterisk; `none` for none
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) dry_sequence_breaker: Vec<String>,

    /// Add to the logit of a token, such as 15043+1 or 15043-inf; may be given several times
    #[arg(long, value_name = "ID±X")]
    pub(crate) logit_bias: Vec<LogitBias>,
}

impl SamplingArgs {
    /// The engine's parameters: `defaults`, with what the flags say in its place.
    pub(crate) fn params(&self, defaults: SamplingParams, tokenizer: &Tokenizer) -> Result<SamplingParams> {
        Ok(SamplingParams {
            temperature: self.temp.unwrap_or(defaults.temperature),
            top_n_sigma: self.top_n_sigma.unwrap_or(defaults.top_n_sigma),
            top_k: self.top_k.map_or(defaults.top_k, |n| n as usize),
            top_p: self.top_p.unwrap_or(defaults.top_p),
            min_p: self.min_p.unwrap_or(defaults.min_p),
            typical_p: self.typical.unwrap_or(defaults.typical_p),
            xtc_probability: self.xtc_probability.unwrap_or(defaults.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(defaults.xtc_threshold),
            mirostat: self.mirostat(),
            repeat_penalty: self.repeat_penalty.unwrap_or(defaults.repeat_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(defaults.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(defaults.presence_penalty),
            penalty_last_n: self.repeat_last_n.map_or(defaults.penalty_last_n, or_all),
            dry: self.dry(tokenizer),
            logit_bias: self.logit_bias(tokenizer)?,
            seed: self.seed.map_or(defaults.seed, |Seed(seed)| seed),
        })
    }

    fn logit_bias(&self, tokenizer: &Tokenizer) -> Result<Vec<(u32, f32)>> {
        let n_vocab = tokenizer.n_vocab();
        let biases = self.logit_bias.iter().map(|&LogitBias { token, bias }| {
            if (token as usize) < n_vocab {
                return Ok((token, bias));
            }
            let what =
                format!("--logit-bias: there is no token {token}: the vocabulary has {n_vocab}, from 0 on");
            Err(Failure::new(Kind::Usage, what).advice("`metallic tokenize` shows a text's tokens"))
        });
        biases.collect()
    }

    fn mirostat(&self) -> Option<MirostatParams> {
        if self.mirostat != Some(Mirostat::Two) {
            return None;
        }
        let replaced = [
            ("--top-n-sigma", self.top_n_sigma.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("--typical", self.typical.is_some()),
            ("--xtc-probability", self.xtc_probability.is_some()),
            ("--repeat-penalty", self.repeat_penalty.is_some()),
            ("--presence-penalty", self.presence_penalty.is_some()),
            ("--frequency-penalty", self.frequency_penalty.is_some()),
            ("--dry-multiplier", self.dry_multiplier.is_some()),
        ];
        let replaced: Vec<&str> =
            replaced.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
        if !replaced.is_empty() {
            tracing::warn!("--mirostat takes the place of {}", replaced.join(", "));
        }
        let MirostatParams { tau, eta } = MirostatParams::default();
        Some(MirostatParams { tau: self.mirostat_ent.unwrap_or(tau), eta: self.mirostat_lr.unwrap_or(eta) })
    }

    fn dry(&self, tokenizer: &Tokenizer) -> Option<DryParams> {
        let multiplier = self.dry_multiplier.filter(|multiplier| *multiplier > 0.0)?;
        let defaults = DryParams::default();
        let given = self.dry_sequence_breaker.iter().map(String::as_str).filter(|text| *text != NO_BREAKERS);
        let texts: Vec<&str> = if self.dry_sequence_breaker.is_empty() {
            DRY_SEQUENCE_BREAKERS.to_vec()
        } else {
            given.collect()
        };
        Some(DryParams {
            multiplier,
            base: self.dry_base.unwrap_or(defaults.base),
            allowed_length: self.dry_allowed_length.map_or(defaults.allowed_length, |n| n as usize),
            last_n: self.dry_penalty_last_n.map_or(defaults.last_n, or_all),
            breakers: tokens_with(&texts, tokenizer),
        })
    }
}

/// A number of tokens; every negative number means all.
fn or_all(n: i32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The tokens whose text contains one of the texts.
fn tokens_with(texts: &[&str], tokenizer: &Tokenizer) -> Vec<u32> {
    let contains = |piece: &[u8], text: &str| piece.windows(text.len()).any(|part| part == text.as_bytes());
    (0..tokenizer.n_vocab() as u32)
        .filter(|id| tokenizer.piece(*id).is_some_and(|piece| texts.iter().any(|text| contains(piece, text))))
        .collect()
}

/// What random numbers begin with; `None` for something new each time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Seed(Option<u64>);

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "-1" {
            return Ok(Seed(None));
        }
        let seed = text.parse().map_err(|_| format!("it must be a number from 0 to {}, or -1", u64::MAX))?;
        Ok(Seed(Some(seed)))
    }
}

/// A token and what is added to its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LogitBias {
    /// The token.
    pub(crate) token: u32,
    /// What is added; minus infinity forbids the token.
    pub(crate) bias: f32,
}

impl Serialize for LogitBias {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}{:+}", self.token, self.bias))
    }
}

impl FromStr for LogitBias {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parsed = text.find(['+', '-']).and_then(|at| {
            let token = text[..at].parse().ok()?;
            let bias: f32 = text[at..].parse().ok()?;
            (bias.is_finite() || bias == f32::NEG_INFINITY).then_some(LogitBias { token, bias })
        });
        parsed
            .ok_or_else(|| "write a token's id, a sign and a number, such as 15043+1 or 15043-inf".to_owned())
    }
}

/// Which Mirostat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirostat {
    Off,
    Two,
}

fn mirostat(text: &str) -> std::result::Result<Mirostat, String> {
    match text {
        "0" => Ok(Mirostat::Off),
        "2" => Ok(Mirostat::Two),
        "1" => Err("version 1 is not there: 2 does the same and estimates less".to_owned()),
        _ => Err("it must be 0 or 2".to_owned()),
    }
}

impl Serialize for Mirostat {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_u8(if *self == Mirostat::Two { 2 } else { 0 })
    }
}

fn number(text: &str, what: &str, is_valid: impl Fn(f32) -> bool) -> std::result::Result<f32, String> {
    text.parse()
        .ok()
        .filter(|value: &f32| value.is_finite() && is_valid(*value))
        .ok_or_else(|| what.to_owned())
}

fn finite(text: &str) -> std::result::Result<f32, String> {
    number(text, "it must be a number", |_| true)
}

fn non_negative(text: &str) -> std::result::Result<f32, String> {
    number(text, "it must be a number, 0 or more", |value| value >= 0.0)
}

fn positive(text: &str) -> std::result::Result<f32, String> {
    number(text, "it must be a number above 0", |value| value > 0.0)
}

fn probability(text: &str) -> std::result::Result<f32, String> {
    number(text, "it must be a number from 0 to 1", |value| (0.0..=1.0).contains(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_biases() {
        assert_eq!("15043+1".parse(), Ok(LogitBias { token: 15043, bias: 1.0 }));
        assert_eq!("0-2.5".parse(), Ok(LogitBias { token: 0, bias: -2.5 }));
        assert_eq!("7-inf".parse(), Ok(LogitBias { token: 7, bias: f32::NEG_INFINITY }));
        for wrong in ["", "1", "+1", "-1", "1+", "1+x", "1+inf", "1+nan", "4294967296+1"] {
            assert!(wrong.parse::<LogitBias>().is_err(), "{wrong}");
        }
    }

    /// What `--help` says of defaults is what the engine does.
    #[test]
    fn help_tells_the_defaults() {
        let (params, dry) = (SamplingParams::default(), DryParams::default());
        let mirostat = MirostatParams::default();
        let command = SamplingArgs::augment_args(clap::Command::new("test"));
        for (id, default) in [
            ("temp", params.temperature),
            ("top_n_sigma", params.top_n_sigma),
            ("top_k", params.top_k as f32),
            ("top_p", params.top_p),
            ("min_p", params.min_p),
            ("typical", params.typical_p),
            ("xtc_probability", params.xtc_probability),
            ("xtc_threshold", params.xtc_threshold),
            ("mirostat_lr", mirostat.eta),
            ("mirostat_ent", mirostat.tau),
            ("repeat_penalty", params.repeat_penalty),
            ("repeat_last_n", params.penalty_last_n as f32),
            ("presence_penalty", params.presence_penalty),
            ("frequency_penalty", params.frequency_penalty),
            ("dry_base", dry.base),
            ("dry_allowed_length", dry.allowed_length as f32),
            ("dry_penalty_last_n", dry.last_n as f32),
        ] {
            let arg = command.get_arguments().find(|arg| arg.get_id() == id).unwrap();
            let help = arg.get_help().unwrap().to_string();
            assert!(help.contains(&format!("[default: {default}")), "{id}: {help}");
        }
        assert_eq!((params.dry, params.mirostat), (None, None));
    }
}
