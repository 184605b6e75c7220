//! An answer on standard output, as it comes: what the model thinks, says, and wants to have called.

mod json;
mod prose;

use std::io::{self, Write as _};

use metallic::engine::Stats;
use metallic::sampling::Logprobs;
use metallic::text::{Answer, AnswerSplitter, Part, Tokenizer};
use metallic::{FinishReason, Isa};

use self::json::Lines;
use self::prose::Prose;
use crate::args::Reasoning;
use crate::failure::{Failure, Result};
use crate::terminal::Terminal;

/// For whom an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Prose,
    /// For programs: an object a line.
    Json {
        /// Whether tokens have log-probabilities, and of how many of the likeliest.
        logprobs: Option<usize>,
    },
}

impl Form {
    /// The log-probabilities that it has need of.
    pub(crate) fn logprobs(self) -> Option<usize> {
        match self {
            Form::Prose => None,
            Form::Json { logprobs } => logprobs,
        }
    }
}

/// Writes an answer.
pub(crate) struct Speech<'a> {
    reasoning: Reasoning,
    splitter: AnswerSplitter,
    answer: Answer,
    writer: Writer<'a>,
}

enum Writer<'a> {
    Prose(Prose<'a>),
    Json(Lines<'a>),
}

impl<'a> Speech<'a> {
    pub(crate) fn new(
        form: Form,
        isa: Isa,
        devices: Vec<String>,
        terminal: &'a Terminal,
        reasoning: Reasoning,
        splitter: AnswerSplitter,
    ) -> Self {
        let writer = match form {
            Form::Prose => Writer::Prose(Prose::new(terminal)),
            Form::Json { .. } => Writer::Json(Lines::new(terminal, isa, devices)),
        };
        Speech { reasoning, splitter, answer: Answer::default(), writer }
    }

    /// Takes a token of the answer, before its text.
    pub(crate) fn token(
        &mut self,
        token: u32,
        logprobs: Option<&Logprobs>,
        tokenizer: &Tokenizer,
    ) -> Result<()> {
        match &mut self.writer {
            Writer::Prose(_) => Ok(()),
            Writer::Json(lines) => lines.token(token, logprobs, tokenizer).map_err(Failure::output),
        }
    }

    /// Takes more of the answer's text.
    pub(crate) fn push(&mut self, text: &str) -> Result<()> {
        let parts = self.splitter.push(text);
        self.write_all(parts)
    }

    /// Ends the answer, with why it ended unless it failed.
    pub(crate) fn finish(mut self, end: Option<(FinishReason, &Stats)>) -> Result<Answer> {
        let parts = self.splitter.finish();
        self.write_all(parts)?;
        let Answer { reasoning, content, tool_calls } = &self.answer;
        let is_all_hidden = !reasoning.is_empty() && content.is_empty() && tool_calls.is_empty();
        if self.reasoning == Reasoning::Hide && is_all_hidden {
            tracing::warn!(
                "the model only thought, and gave no answer; `--reasoning show` shows what it thought"
            );
        }
        match (&mut self.writer, end) {
            (Writer::Prose(prose), _) => prose.end(),
            (Writer::Json(lines), Some((reason, stats))) => {
                lines.end(reason, stats).map_err(Failure::output)?
            }
            (Writer::Json(_), None) => {}
        }
        Ok(self.answer)
    }

    fn write_all(&mut self, parts: Vec<Part>) -> Result<()> {
        for part in parts {
            self.write_part(&part).map_err(Failure::output)?;
            self.answer.push(part);
        }
        io::stdout().flush().map_err(Failure::output)
    }

    fn write_part(&mut self, part: &Part) -> io::Result<()> {
        if let Part::Malformed(call) = part {
            tracing::warn!("{call}");
        }
        let is_hidden = self.reasoning == Reasoning::Hide && matches!(part, Part::Reasoning(_));
        match &mut self.writer {
            Writer::Prose(prose) if is_hidden => {
                prose.think();
                Ok(())
            }
            Writer::Json(_) if is_hidden => Ok(()),
            Writer::Prose(prose) => prose.part(part),
            Writer::Json(lines) => lines.part(part),
        }
    }
}
