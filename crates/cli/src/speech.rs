//! An answer on standard output, as it comes: what the model thinks, says, and wants to have called.

use std::io::{self, Write as _};

use indicatif::ProgressBar;
use metallic::text::{Answer, AnswerSplitter, Part};

use crate::args::Reasoning;
use crate::failure::{Failure, Result};
use crate::terminal::{Style, Terminal};

/// Writes an answer.
pub(crate) struct Speech<'a> {
    terminal: &'a Terminal,
    reasoning: Reasoning,
    splitter: AnswerSplitter,
    answer: Answer,
    /// What was written last.
    last: Option<Written>,
    /// Shown while the model thinks unseen.
    sign_of_life: Option<ProgressBar>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Reasoning,
    Content,
    Call,
}

impl<'a> Speech<'a> {
    pub(crate) fn new(terminal: &'a Terminal, reasoning: Reasoning, splitter: AnswerSplitter) -> Self {
        Speech { terminal, reasoning, splitter, answer: Answer::default(), last: None, sign_of_life: None }
    }

    /// Takes more of the answer.
    pub(crate) fn push(&mut self, text: &str) -> Result<()> {
        let parts = self.splitter.push(text);
        self.write_all(parts)
    }

    /// Ends the answer.
    pub(crate) fn finish(mut self) -> Result<Answer> {
        let parts = self.splitter.finish();
        self.write_all(parts)?;
        self.end_sign();
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
        match part {
            Part::Reasoning(_) if self.reasoning == Reasoning::Hide => {
                self.sign_of_life.get_or_insert_with(|| self.terminal.spinner("thinking …"));
                Ok(())
            }
            Part::Reasoning(text) => {
                self.write(Written::Reasoning, &self.terminal.paint(Style::Dim, self.terminal.safe(text)))
            }
            Part::Content(text) => self.write(Written::Content, &self.terminal.safe(text)),
            Part::ToolCall(call) => {
                let line = serde_json::to_string(call)?;
                self.write(Written::Call, &self.terminal.safe(&line))
            }
            Part::Malformed(call) => {
                self.write(Written::Content, &self.terminal.safe(&call.text))?;
                tracing::warn!("{call}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes text of one kind, apart from what is of another. Each call is a line.
    fn write(&mut self, kind: Written, text: &str) -> io::Result<()> {
        self.end_sign();
        let apart = match self.last {
            None => "",
            Some(Written::Call) => "\n",
            Some(_) if kind == Written::Call => "\n",
            Some(last) if last == kind => "",
            Some(_) => "\n\n",
        };
        self.last = Some(kind);
        let mut out = io::stdout().lock();
        out.write_all(apart.as_bytes())?;
        out.write_all(text.as_bytes())
    }

    fn end_sign(&mut self) {
        if let Some(sign) = self.sign_of_life.take() {
            sign.finish_and_clear();
        }
    }
}
