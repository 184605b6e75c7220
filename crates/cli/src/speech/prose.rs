//! An answer for people: text as it comes, reasoning dimmed and apart, each call a line.

use std::io::{self, Write as _};

use indicatif::ProgressBar;
use metallic::text::Part;

use crate::terminal::{Style, Terminal};

/// Writes an answer as text.
pub(super) struct Prose<'a> {
    terminal: &'a Terminal,
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

impl<'a> Prose<'a> {
    pub(super) fn new(terminal: &'a Terminal) -> Self {
        Prose { terminal, last: None, sign_of_life: None }
    }

    /// Shows that the model is at work on what isn't shown.
    pub(super) fn think(&mut self) {
        self.sign_of_life.get_or_insert_with(|| self.terminal.spinner("thinking …"));
    }

    pub(super) fn end(&mut self) {
        if let Some(sign) = self.sign_of_life.take() {
            sign.finish_and_clear();
        }
    }

    pub(super) fn part(&mut self, part: &Part) -> io::Result<()> {
        match part {
            Part::Reasoning(text) => {
                self.write(Written::Reasoning, &self.terminal.paint(Style::Dim, self.terminal.safe(text)))
            }
            Part::Content(text) => self.write(Written::Content, &self.terminal.safe(text)),
            Part::ToolCall(call) => {
                let line = serde_json::to_string(call)?;
                self.write(Written::Call, &self.terminal.safe(&line))
            }
            Part::Malformed(call) => self.write(Written::Content, &self.terminal.safe(&call.text)),
            _ => Ok(()),
        }
    }

    /// Writes text of one kind, apart from what is of another. Each call is a line.
    fn write(&mut self, kind: Written, text: &str) -> io::Result<()> {
        self.end();
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
}
