//! An answer for programs: a line with an object of JSON for each thing that happens. `metallic run --help` has the
//! fields.

use std::io::{self, Write as _};
use std::time::Duration;

use metallic::engine::Stats;
use metallic::sampling::Logprobs;
use metallic::text::{Part, Tokenizer, ToolCall};
use metallic::{FinishReason, Isa};
use serde::Serialize;

use crate::terminal::Terminal;

/// Writes an answer as lines of JSON.
pub(super) struct Lines<'a> {
    terminal: &'a Terminal,
    isa: Isa,
    devices: Vec<String>,
}

/// What a line says.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    Text {
        text: &'a str,
    },
    Reasoning {
        text: &'a str,
    },
    ToolCall(&'a ToolCall),
    Token {
        id: u32,
        text: String,
        #[serde(flatten)]
        likelihood: Option<Likelihood>,
    },
    End(End<'a>),
}

#[derive(Serialize)]
struct Likelihood {
    logprob: f32,
    top: Vec<Candidate>,
}

#[derive(Serialize)]
struct Candidate {
    id: u32,
    text: String,
    logprob: f32,
}

#[derive(Serialize)]
struct End<'a> {
    reason: &'static str,
    n_prompt: usize,
    n_cached: usize,
    n_read: usize,
    n_generated: usize,
    /// Guesses of what comes next, and those that were right.
    n_guessed: usize,
    n_accepted: usize,
    /// Tokens a pass over the weights, and the rows that it computed for them, guesses included; not of the prompt's passes.
    tokens_per_pass: Option<f64>,
    rows_per_pass: Option<f64>,
    prefill_s: f64,
    decode_s: f64,
    prefill_tokens_s: Option<f64>,
    decode_tokens_s: Option<f64>,
    /// Of the CPU.
    isa: &'static str,
    /// What computed beside the CPU.
    devices: &'a [String],
}

impl<'a> Lines<'a> {
    pub(super) fn new(terminal: &'a Terminal, isa: Isa, devices: Vec<String>) -> Self {
        Lines { terminal, isa, devices }
    }

    pub(super) fn token(
        &mut self,
        id: u32,
        logprobs: Option<&Logprobs>,
        tokenizer: &Tokenizer,
    ) -> io::Result<()> {
        let text = |id| String::from_utf8_lossy(tokenizer.piece(id).unwrap_or_default()).into_owned();
        let likelihood = logprobs.map(|Logprobs { chosen, top }| Likelihood {
            logprob: *chosen,
            top: top
                .iter()
                .map(|one| Candidate { id: one.token, text: text(one.token), logprob: one.logprob })
                .collect(),
        });
        self.write(&Line::Token { id, text: text(id), likelihood })
    }

    pub(super) fn part(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Content(text) => self.write(&Line::Text { text }),
            Part::Malformed(call) => self.write(&Line::Text { text: &call.text }),
            Part::Reasoning(text) => self.write(&Line::Reasoning { text }),
            Part::ToolCall(call) => self.write(&Line::ToolCall(call)),
            _ => Ok(()),
        }
    }

    pub(super) fn end(&mut self, reason: FinishReason, stats: &Stats) -> io::Result<()> {
        let &Stats {
            n_prompt, n_cached, n_read, n_generated, n_guessed, n_accepted, prefill, decode, ..
        } = stats;
        let [prefill_s, decode_s] = [prefill, decode].map(|time: Duration| time.as_secs_f64());
        self.write(&Line::End(End {
            reason: name(reason),
            n_prompt,
            n_cached,
            n_read,
            n_generated,
            n_guessed,
            n_accepted,
            tokens_per_pass: stats.tokens_per_pass(),
            rows_per_pass: stats.rows_per_pass(),
            prefill_s,
            decode_s,
            prefill_tokens_s: stats.prefill_rate(),
            decode_tokens_s: stats.decode_rate(),
            isa: self.isa.name(),
            devices: &self.devices,
        }))
    }

    fn write(&self, line: &Line<'_>) -> io::Result<()> {
        let line = serde_json::to_string(line)?;
        writeln!(io::stdout().lock(), "{}", self.terminal.safe(&line))
    }
}

fn name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::StopToken => "stop",
        FinishReason::StopString => "stop_text",
        FinishReason::MaxTokens => "max_tokens",
        FinishReason::ContextFull => "context_full",
        FinishReason::Cancelled => "interrupted",
    }
}
