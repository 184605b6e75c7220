//! Sampling parameters, with llama.cpp's names and defaults.

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keeps those whose logit is within so many standard deviations of the largest; 0 or less keeps all.
    pub top_n_sigma: f32,
    /// Keeps the likeliest so many; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps those at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Keeps those whose surprise is nearest the expected one, up to this probability together; 1 keeps all
    /// (Meister et al. 2022, "Locally Typical Sampling").
    pub typical_p: f32,
    /// How often the likeliest tokens are dropped in favour of the next; 0 is never.
    pub xtc_probability: f32,
    /// How likely a token must be for XTC to drop it, if a less likely one is as likely as that.
    pub xtc_threshold: f32,
    /// Keeps the surprise of tokens near a target. It takes the place of everything but the logit bias and the
    /// temperature.
    pub mirostat: Option<MirostatParams>,
    /// Divides positive and multiplies negative logits of recent tokens; 1 does nothing (Keskar et al. 2019).
    pub repeat_penalty: f32,
    /// Subtracted from a recent token's logit for each time it occurs.
    pub frequency_penalty: f32,
    /// Subtracted from a recent token's logit once.
    pub presence_penalty: f32,
    /// Tokens that the three penalties look back.
    pub penalty_last_n: usize,
    /// Penalty on continuing a repetition.
    pub dry: Option<DryParams>,
    /// Added to the logits of single tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Fixes the draws; `None` draws a seed.
    pub seed: Option<u64>,
}

/// DRY, "don't repeat yourself": a token that would make a repetition longer loses
/// `multiplier · base^(length − allowed_length)`, where `length` counts the tokens repeated so far.
#[derive(Clone, Debug, PartialEq)]
pub struct DryParams {
    /// Strength.
    pub multiplier: f32,
    /// Growth with each token.
    pub base: f32,
    /// Repetitions shorter than this are free.
    pub allowed_length: usize,
    /// Tokens that it looks back.
    pub last_n: usize,
    /// Tokens that no repetition reaches across.
    pub breakers: Vec<u32>,
}

/// Mirostat 2.
#[derive(Clone, Debug, PartialEq)]
pub struct MirostatParams {
    /// The surprise that tokens are to have, in bits.
    pub tau: f32,
    /// How fast it reacts.
    pub eta: f32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_n_sigma: -1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            mirostat: None,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_last_n: 64,
            dry: None,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

impl Default for DryParams {
    fn default() -> Self {
        Self { multiplier: 0.8, base: 1.75, allowed_length: 2, last_n: 4096, breakers: Vec::new() }
    }
}

impl Default for MirostatParams {
    fn default() -> Self {
        Self { tau: 5.0, eta: 0.1 }
    }
}

/// A sampling parameter out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, but it must be {range}")]
pub struct Error {
    /// The parameter.
    pub name: &'static str,
    /// Its value.
    pub value: f32,
    /// What it must be.
    pub range: &'static str,
}

impl SamplingParams {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every parameter's range.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |name, value: f32, ok: bool, range| {
            if ok && !value.is_nan() { Ok(()) } else { Err(Error { name, value, range }) }
        };
        let fraction = |name, value: f32| check(name, value, (0.0..=1.0).contains(&value), "from 0 to 1");
        let finite = |name, value: f32| check(name, value, value.is_finite(), "a finite number");
        let positive =
            |name, value: f32| check(name, value, value > 0.0 && value.is_finite(), "greater than 0");
        let temperature = self.temperature;
        check("temperature", temperature, temperature >= 0.0 && temperature.is_finite(), "0 or more")?;
        fraction("top-p", self.top_p)?;
        fraction("min-p", self.min_p)?;
        fraction("typical", self.typical_p)?;
        finite("top-n-sigma", self.top_n_sigma)?;
        fraction("xtc-probability", self.xtc_probability)?;
        fraction("xtc-threshold", self.xtc_threshold)?;
        positive("repeat-penalty", self.repeat_penalty)?;
        finite("frequency-penalty", self.frequency_penalty)?;
        finite("presence-penalty", self.presence_penalty)?;
        for (_, bias) in &self.logit_bias {
            check("logit-bias", *bias, *bias < f32::INFINITY, "a number, or -inf to forbid a token")?;
        }
        if let Some(dry) = &self.dry {
            finite("dry-multiplier", dry.multiplier)?;
            check("dry-base", dry.base, dry.base >= 1.0 && dry.base.is_finite(), "1 or more")?;
        }
        if let Some(mirostat) = &self.mirostat {
            positive("mirostat-ent", mirostat.tau)?;
            positive("mirostat-lr", mirostat.eta)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_are_named() {
        let default = SamplingParams::default;
        let mirostat = |tau, eta| Some(MirostatParams { tau, eta });
        let cases = [
            ("temperature", SamplingParams { temperature: -0.1, ..default() }),
            ("temperature", SamplingParams { temperature: f32::NAN, ..default() }),
            ("top-p", SamplingParams { top_p: 1.1, ..default() }),
            ("min-p", SamplingParams { min_p: -0.1, ..default() }),
            ("typical", SamplingParams { typical_p: 2.0, ..default() }),
            ("top-n-sigma", SamplingParams { top_n_sigma: f32::NAN, ..default() }),
            ("xtc-probability", SamplingParams { xtc_probability: 1.5, ..default() }),
            ("xtc-threshold", SamplingParams { xtc_threshold: -1.0, ..default() }),
            ("mirostat-ent", SamplingParams { mirostat: mirostat(0.0, 0.1), ..default() }),
            ("mirostat-lr", SamplingParams { mirostat: mirostat(5.0, f32::INFINITY), ..default() }),
            ("repeat-penalty", SamplingParams { repeat_penalty: 0.0, ..default() }),
            ("frequency-penalty", SamplingParams { frequency_penalty: f32::INFINITY, ..default() }),
            ("presence-penalty", SamplingParams { presence_penalty: f32::NAN, ..default() }),
            ("logit-bias", SamplingParams { logit_bias: vec![(0, f32::INFINITY)], ..default() }),
            (
                "dry-base",
                SamplingParams { dry: Some(DryParams { base: 0.5, ..DryParams::default() }), ..default() },
            ),
        ];
        for (name, params) in cases {
            assert_eq!(params.validate().unwrap_err().name, name);
        }
        default().validate().unwrap();
        SamplingParams::greedy().validate().unwrap();
    }
}
